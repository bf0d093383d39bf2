"""The flash-attn packages for NVIDIA GPUs: FlashAttention 2, and 3 for Hopper alone, which is faster there and knows no ALiBi.

Shapes: `b` micro-batch, `s` sequence, `d` head size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

LARGEST_HEAD = 256
HOPPER = (9, 0)
HOPPER_CHANNELS = 8
"""FlashAttention 3 takes heads of a multiple of as many channels; 2 pads others."""


class FlashAttn(NamedTuple):
    """The functions of a package: on rows of one length [b, s, heads, d], and on documents laid end to end [b s, heads, d]."""

    dense: Callable[..., Tensor]
    by_documents: Callable[..., Tensor]


def fitting_package(query: Tensor, *, has_slopes: bool) -> FlashAttn | None:
    """The fastest installed package that takes queries [..., d] like these, with slopes (ALiBi) or without; None = there is none."""
    is_half = query.dtype in (torch.float16, torch.bfloat16)
    if not (query.is_cuda and is_half and query.shape[-1] <= LARGEST_HEAD):
        return None
    is_for_hopper = _capability(query.device) == HOPPER and query.shape[-1] % HOPPER_CHANNELS == 0 and not has_slopes
    return (find_flash_attn_3() if is_for_hopper else None) or find_flash_attn_2()


@lru_cache(maxsize=1)
def find_flash_attn_2() -> FlashAttn | None:
    """Module flash_attn (requirements-flashattention.txt), or None."""
    try:
        from flash_attn import flash_attn_func, flash_attn_varlen_func
    except ImportError:
        return None
    return FlashAttn(flash_attn_func, flash_attn_varlen_func)


@lru_cache(maxsize=1)
def find_flash_attn_3() -> FlashAttn | None:
    """Module flash_attn_interface (the folder `hopper` of flash-attn's repository), or None."""
    try:
        from flash_attn_interface import flash_attn_func, flash_attn_varlen_func
    except ImportError:
        return None
    return FlashAttn(_first_of(flash_attn_func), _first_of(flash_attn_varlen_func))


def _first_of(function: Callable[..., Any]) -> Callable[..., Tensor]:
    """Versions before the middle of 2025 give the logarithms of sums beside the result."""

    def attend(*tensors: Tensor, **options: Any) -> Tensor:
        result = function(*tensors, **options)
        mixed: Tensor = result[0] if isinstance(result, tuple) else result
        return mixed

    return attend


@lru_cache(maxsize=8)
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)
