"""A bias and the GELU behind it, by its tanh approximation, in one pass each way: the second one sums the bias's gradient as well."""

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


def bias_gelu_tanh(x: Tensor, bias: Tensor) -> Tensor:
    """See reference.bias_gelu_tanh."""
    if not is_fusable(x, bias):
        return reference.bias_gelu_tanh(x, bias)
    output: Tensor = _BiasGelu.apply(x, bias)
    return output


class _BiasGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor) -> Tensor:
        values, bias = as_rows(x), bias.contiguous()
        ctx.save_for_backward(values, bias)
        blocks = blocks_of(*values.shape)
        output = torch.empty(values.shape, dtype=x.dtype, device=x.device)
        bias_gelu_forward[blocks.grid](
            *(values, bias, output, blocks.rows, blocks.columns, values.stride(0)),
            height=blocks.height,
            width=blocks.width,
        )
        return output.view(x.shape)

    @staticmethod
    @once_differentiable  # type: ignore[misc,untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        values, bias = ctx.saved_tensors
        upstream = as_rows(gradient)
        blocks = blocks_of(*values.shape)
        x_gradient = torch.empty(values.shape, dtype=values.dtype, device=values.device)
        sums = values.new_empty((blocks.summing_grid[0], blocks.columns), dtype=torch.float32)
        bias_gelu_backward[blocks.summing_grid](
            *(values, bias, upstream, x_gradient, sums),
            *(blocks.rows, blocks.columns, values.stride(0), upstream.stride(0)),
            height=blocks.height,
            width=blocks.width,
        )
        return x_gradient.view(gradient.shape), sums.sum(dim=0).to(bias.dtype)


@triton.jit
def bias_gelu_forward(
    values: tl.tensor,
    bias: tl.tensor,
    output: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    stride: tl.tensor,
    height: tl.constexpr,
    width: tl.constexpr,
) -> None:
    row = tl.program_id(0) * height + tl.arange(0, height).to(tl.int64)[:, None]
    column = tl.program_id(1) * width + tl.arange(0, width)[None, :]
    exists = (row < rows) & (column < columns)
    moved = tl.load(values + row * stride + column, mask=exists, other=0).to(tl.float32)
    moved += tl.load(bias + column, mask=column < columns, other=0).to(tl.float32)
    share, _ = _share_and_slope(moved)
    tl.store(output + row * columns + column, moved * share, mask=exists)


@triton.jit
def bias_gelu_backward(
    values: tl.tensor,
    bias: tl.tensor,
    upstream: tl.tensor,
    x_gradient: tl.tensor,
    sums: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    stride: tl.tensor,
    upstream_stride: tl.tensor,
    height: tl.constexpr,
    width: tl.constexpr,
) -> None:
    column = tl.program_id(1) * width + tl.arange(0, width)[None, :]
    shift = tl.load(bias + column, mask=column < columns, other=0).to(tl.float32)
    total = tl.zeros([height, width], dtype=tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(rows, height), tl.num_programs(0)):
        row = tile * height + tl.arange(0, height).to(tl.int64)[:, None]
        exists = (row < rows) & (column < columns)
        moved = tl.load(values + row * stride + column, mask=exists, other=0).to(tl.float32) + shift
        gradient = tl.load(upstream + row * upstream_stride + column, mask=exists, other=0).to(tl.float32)
        _, slope = _share_and_slope(moved)
        tl.store(x_gradient + row * columns + column, gradient * slope, mask=exists)
        total += gradient * slope
    place = sums + tl.program_id(0).to(tl.int64) * columns + column
    tl.store(place, tl.sum(total, axis=0)[None, :], mask=column < columns)


@triton.jit
def _share_and_slope(x: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """gelu_tanh(x) / x, and the derivative of gelu_tanh.

    (1 + tanh(u)) / 2 is the sigmoid of 2 u, which does not cancel where x is far below 0. Here 2 u = 2 sqrt(2 / pi) (x + 0.044715 x^3).
    """
    share = tl.sigmoid(1.5957691216057308 * x * (1 + 0.044715 * x * x))
    slope = share + share * (1 - share) * 1.5957691216057308 * x * (1 + 0.134145 * x * x)
    return share, slope
