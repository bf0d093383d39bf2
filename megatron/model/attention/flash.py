"""Attention that never writes its scores to memory: the flash-attn package where it is installed and fits, torch's SDPA otherwise.

Shapes: `s` queries, `S` keys, `b` micro-batch, `n` local query heads, `k` local key/value heads, `d` head size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from megatron.model.attention.base import Attention
from megatron.model.attention.mask import window_bias

FLASH_ATTN_LARGEST_HEAD = 256


class FlashAttention(Attention):
    """The same function as `GlobalAttention`, computed block by block.

    Without the flash-attn package, a window shorter than the sequence needs a mask [s, s], one for all layers.
    """

    def attend(self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None) -> Tensor:
        """See Attention.attend."""
        flash_attn = _find_flash_attn() if allowed is None and _fits_flash_attn(query) else None
        if flash_attn is not None:
            arguments = (x.transpose(1, 2) for x in (query, key, value))  # [b, s, heads, d]
            # Its window counts the keys before and after a query's own; -1 is no limit.
            window = (-1, -1) if self.window is None else (self.window - 1, 0)
            mixed = flash_attn(*arguments, dropout_p=self.active_dropout, causal=True, window_size=window)
            return mixed.transpose(1, 2)
        mask, length = allowed, key.shape[2]
        if allowed is None and self.window is not None and self.window < length:
            mask = window_bias(length, self.window, query.dtype, query.device)
        return F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            is_causal=mask is None,
            dropout_p=self.active_dropout,
            enable_gqa=query.shape[1] != key.shape[1],
        )


def _fits_flash_attn(query: Tensor) -> bool:
    is_half = query.dtype in (torch.float16, torch.bfloat16)
    return query.is_cuda and is_half and query.shape[-1] <= FLASH_ATTN_LARGEST_HEAD


@lru_cache(maxsize=1)
def _find_flash_attn() -> Callable[..., Tensor] | None:
    """`flash_attn_func` of the optional package (requirements-flashattention.txt), or None."""
    try:
        from flash_attn import flash_attn_func
    except ImportError:
        return None
    function: Callable[..., Tensor] = flash_attn_func
    return function
