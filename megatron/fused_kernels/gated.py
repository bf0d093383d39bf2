"""SwiGLU and GeGLU in one pass each way, over both halves of one projection where they lie.

The backward pass computes the activation again and writes the gradients of both halves into one tensor: nothing is copied between the
halves and the whole, and nothing is kept but the input.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from megatron.fused_kernels import reference
from megatron.fused_kernels.rows import as_rows, blocks_of
from megatron.fused_kernels.tiles import is_fusable


def swiglu(widened: Tensor) -> Tensor:
    """See reference.swiglu."""
    return _gated(widened, True) if is_fusable(widened) else reference.swiglu(widened)


def geglu(widened: Tensor) -> Tensor:
    """See reference.geglu."""
    return _gated(widened, False) if is_fusable(widened) else reference.geglu(widened)


def _gated(widened: Tensor, is_silu: bool) -> Tensor:
    output: Tensor = _Gated.apply(widened, is_silu)
    return output


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, widened: Tensor, is_silu: bool) -> Tensor:
        halves = as_rows(widened)
        ctx.save_for_backward(halves)
        ctx.is_silu, ctx.shape = is_silu, widened.shape
        blocks = blocks_of(halves.shape[0], halves.shape[1] // 2)
        output = halves.new_empty(blocks.rows, blocks.columns)
        gated_forward[blocks.grid](
            *(halves, output, blocks.rows, blocks.columns, halves.stride(0)),
            is_silu=is_silu,
            height=blocks.height,
            width=blocks.width,
        )
        return output.view(*widened.shape[:-1], blocks.columns)

    @staticmethod
    @once_differentiable  # type: ignore[misc,untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (halves,) = ctx.saved_tensors
        upstream = as_rows(gradient)
        blocks = blocks_of(*upstream.shape)
        gradients = torch.empty(halves.shape, dtype=halves.dtype, device=halves.device)
        gated_backward[blocks.grid](
            *(halves, upstream, gradients, blocks.rows, blocks.columns, halves.stride(0), upstream.stride(0)),
            is_silu=ctx.is_silu,
            height=blocks.height,
            width=blocks.width,
        )
        return gradients.view(ctx.shape), None


@triton.jit
def gated_forward(
    halves: tl.tensor,
    output: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    stride: tl.tensor,
    is_silu: tl.constexpr,
    height: tl.constexpr,
    width: tl.constexpr,
) -> None:
    row = tl.program_id(0) * height + tl.arange(0, height).to(tl.int64)[:, None]
    column = tl.program_id(1) * width + tl.arange(0, width)[None, :]
    exists = (row < rows) & (column < columns)
    up = tl.load(halves + row * stride + column, mask=exists, other=0).to(tl.float32)
    gate = tl.load(halves + row * stride + columns + column, mask=exists, other=0).to(tl.float32)
    share, _ = _share_and_slope(gate, is_silu)
    tl.store(output + row * columns + column, up * (gate * share), mask=exists)


@triton.jit
def gated_backward(
    halves: tl.tensor,
    upstream: tl.tensor,
    gradients: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    stride: tl.tensor,
    upstream_stride: tl.tensor,
    is_silu: tl.constexpr,
    height: tl.constexpr,
    width: tl.constexpr,
) -> None:
    row = tl.program_id(0) * height + tl.arange(0, height).to(tl.int64)[:, None]
    column = tl.program_id(1) * width + tl.arange(0, width)[None, :]
    exists = (row < rows) & (column < columns)
    up = tl.load(halves + row * stride + column, mask=exists, other=0).to(tl.float32)
    gate = tl.load(halves + row * stride + columns + column, mask=exists, other=0).to(tl.float32)
    gradient = tl.load(upstream + row * upstream_stride + column, mask=exists, other=0).to(tl.float32)
    share, slope = _share_and_slope(gate, is_silu)
    place = gradients + row * (2 * columns) + column
    tl.store(place, gradient * (gate * share), mask=exists)
    tl.store(place + columns, gradient * (up * slope), mask=exists)


@triton.jit
def _share_and_slope(gate: tl.tensor, is_silu: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """What the activation lets through of its input, activation(gate) / gate, and its derivative."""
    if is_silu:
        share = tl.sigmoid(gate)
        slope = share + gate * share * (1 - share)
    else:
        share = 0.5 * (1 + tl.erf(gate * 0.7071067811865476))  # sqrt(1 / 2)
        slope = share + gate * tl.exp(-0.5 * gate * gate) * 0.3989422804014327  # sqrt(1 / (2 pi))
    return share, slope
