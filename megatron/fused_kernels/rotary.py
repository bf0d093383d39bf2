"""Rotation of queries and keys in one pass, the same kernel each way: the gradient is rotated back.

Heads are read where they lie in the output of the fused projection, and the part of them that passes unchanged is copied along.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from megatron.fused_kernels import reference
from megatron.fused_kernels.tiles import ceiling, is_fusable, power_of_two, warps

_ELEMENTS = 2048  # that a program holds at once, about


def rotary(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """See reference.rotary. Fused for x [b, n, s, d] with cosines and sines [b or 1, 1, s, r] that need no gradient."""
    if x.dim() != 4 or not (_is_table(cosine) and _is_table(sine)) or not is_fusable(x, cosine, sine):
        return reference.rotary(x, cosine, sine)
    rotated: Tensor = _Rotary.apply(x, cosine, sine)
    return rotated


def _is_table(table: Tensor) -> bool:
    return table.dim() == 4 and table.shape[1] == table.stride(-1) == 1 and not table.requires_grad


class _Rotary(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        ctx.save_for_backward(cosine, sine)
        return _rotate(x, cosine, sine, is_inverse=False)

    @staticmethod
    @once_differentiable  # type: ignore[misc,untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cosine, sine = ctx.saved_tensors
        return _rotate(gradient, cosine, sine, is_inverse=True), None, None


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor, *, is_inverse: bool) -> Tensor:
    """[b, n, s, d] -> the same, contiguous; features side by side are all that is asked of the strides of x."""
    if x.stride(-1) != 1:
        x = x.contiguous()
    batch, heads, length, size = x.shape
    half = cosine.shape[-1] // 2
    rotated = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    width, rest = power_of_two(half), size - 2 * half
    together = min(power_of_two(heads), max(_ELEMENTS // (2 * width), 1))
    rotary_either_way[(batch * length, ceiling(heads, together))](
        *(x, cosine, sine, rotated, heads, length, half, rest),
        *(*x.stride()[:3], *_strides(cosine), *_strides(sine)),
        is_inverse=is_inverse,
        together=together,
        width=width,
        rest_width=power_of_two(rest) if rest else 0,
        num_warps=warps(together * 2 * width),
    )
    return rotated


def _strides(table: Tensor) -> tuple[int, int]:
    """From a row of the batch to the next, 0 where all have the same positions, and from a token to the next."""
    return table.stride(0) if table.shape[0] > 1 else 0, table.stride(2)


@triton.jit
def rotary_either_way(
    x: tl.tensor,
    cosine: tl.tensor,
    sine: tl.tensor,
    rotated: tl.tensor,
    heads: tl.tensor,
    length: tl.tensor,
    half: tl.tensor,
    rest: tl.tensor,
    row_stride: tl.tensor,
    head_stride: tl.tensor,
    token_stride: tl.tensor,
    cosine_row_stride: tl.tensor,
    cosine_token_stride: tl.tensor,
    sine_row_stride: tl.tensor,
    sine_token_stride: tl.tensor,
    is_inverse: tl.constexpr,
    together: tl.constexpr,
    width: tl.constexpr,
    rest_width: tl.constexpr,
) -> None:
    token = (tl.program_id(0) % length).to(tl.int64)
    row = (tl.program_id(0) // length).to(tl.int64)
    pair = tl.arange(0, width)
    cosines = tl.load(cosine + row * cosine_row_stride + token * cosine_token_stride + pair, mask=pair < half, other=0)
    sines = tl.load(sine + row * sine_row_stride + token * sine_token_stride + pair, mask=pair < half, other=0)
    cosines, sines = cosines.to(tl.float32)[None, :], sines.to(tl.float32)[None, :]
    if is_inverse:
        sines = -sines

    head = (tl.program_id(1) * together + tl.arange(0, together)).to(tl.int64)[:, None]
    source = x + row * row_stride + head * head_stride + token * token_stride
    target = rotated + ((row * heads + head) * length + token) * (2 * half + rest)
    exists = (head < heads) & (pair < half)[None, :]
    first = tl.load(source + pair[None, :], mask=exists, other=0).to(tl.float32)
    second = tl.load(source + half + pair[None, :], mask=exists, other=0).to(tl.float32)
    tl.store(target + pair[None, :], first * cosines - second * sines, mask=exists)
    tl.store(target + half + pair[None, :], second * cosines + first * sines, mask=exists)
    if rest_width:
        feature = tl.arange(0, rest_width)
        exists = (head < heads) & (feature < rest)[None, :]
        passed = tl.load(source + 2 * half + feature[None, :], mask=exists, other=0)
        tl.store(target + 2 * half + feature[None, :], passed, mask=exists)
