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

FLASH_ATTN_LARGEST_HEAD = 256


class FlashAttention(Attention):
    """The same function as `GlobalAttention`, computed block by block."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None) -> Tensor:
        """See Attention.attend."""
        flash_attn = _find_flash_attn() if allowed is None and _fits_flash_attn(query) else None
        if flash_attn is not None:
            arguments = (x.transpose(1, 2) for x in (query, key, value))  # [b, s, heads, d]
            return flash_attn(*arguments, dropout_p=self.active_dropout, causal=True).transpose(1, 2)
        return F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=allowed,
            is_causal=allowed is None,
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
