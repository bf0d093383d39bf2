"""LayerNorm in one pass over the rows forward, and one backward."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from megatron.fused_kernels import reference
from megatron.fused_kernels.tiles import LONGEST_ROW, is_fusable, row_tiles


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, *, epsilon: float) -> Tensor:
    """See reference.layer_norm."""
    if not is_fusable(x, weight, bias) or x.shape[-1] > LONGEST_ROW:
        return reference.layer_norm(x, weight, bias, epsilon=epsilon)
    normed: Tensor = _LayerNorm.apply(x, weight, bias, epsilon)
    return normed


class _LayerNorm(torch.autograd.Function):
    """Keeps the input and each row's mean and 1 / sqrt(variance + epsilon), in fp32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, epsilon: float) -> Tensor:
        x = x.contiguous()
        weight = None if weight is None else weight.contiguous()
        tiles = row_tiles(x.numel() // x.shape[-1], x.shape[-1])
        normed = torch.empty_like(x)
        mean, inverse = x.new_empty((2, tiles.rows), dtype=torch.float32).unbind()
        layer_norm_forward[(tiles.count,)](
            *(x, weight, None if bias is None else bias.contiguous(), normed, mean, inverse),
            *(tiles.rows, tiles.columns, epsilon),
            height=tiles.height,
            width=tiles.width,
            num_warps=tiles.warps,
        )
        ctx.save_for_backward(x, weight, mean, inverse)
        ctx.bias_type = None if bias is None else bias.dtype
        return normed

    @staticmethod
    @once_differentiable  # type: ignore[misc,untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        x, weight, mean, inverse = ctx.saved_tensors
        tiles = row_tiles(inverse.numel(), x.shape[-1])
        x_gradient = torch.empty_like(x)
        sums = (tiles.partial_sums, tiles.columns)
        weight_sums = None if weight is None else x.new_empty(sums, dtype=torch.float32)
        bias_sums = None if ctx.bias_type is None else x.new_empty(sums, dtype=torch.float32)
        layer_norm_backward[(tiles.partial_sums,)](
            *(gradient.contiguous(), x, weight, mean, inverse, x_gradient, weight_sums, bias_sums),
            *(tiles.rows, tiles.columns),
            height=tiles.height,
            width=tiles.width,
            num_warps=tiles.warps,
        )
        weight_gradient = None if weight_sums is None else weight_sums.sum(dim=0).to(weight.dtype)
        bias_gradient = None if bias_sums is None else bias_sums.sum(dim=0).to(ctx.bias_type)
        return x_gradient, weight_gradient, bias_gradient, None


@triton.jit
def layer_norm_forward(
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    normed: tl.tensor,
    mean: tl.tensor,
    inverse: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    epsilon: tl.tensor,
    height: tl.constexpr,
    width: tl.constexpr,
) -> None:
    row = tl.program_id(0) * height + tl.arange(0, height).to(tl.int64)
    column = tl.arange(0, width)
    exists = (row < rows)[:, None] & (column < columns)[None, :]
    place = row[:, None] * columns + column[None, :]
    values = tl.load(x + place, mask=exists, other=0).to(tl.float32)
    means = tl.sum(values, axis=1) / columns
    centred = tl.where(exists, values - means[:, None], 0)
    inverses = 1 / tl.sqrt(tl.sum(centred * centred, axis=1) / columns + epsilon)
    result = centred * inverses[:, None]
    if weight is not None:
        result *= tl.load(weight + column, mask=column < columns, other=0).to(tl.float32)[None, :]
    if bias is not None:
        result += tl.load(bias + column, mask=column < columns, other=0).to(tl.float32)[None, :]
    tl.store(mean + row, means, mask=row < rows)
    tl.store(inverse + row, inverses, mask=row < rows)
    tl.store(normed + place, result, mask=exists)


@triton.jit
def layer_norm_backward(
    gradient: tl.tensor,
    x: tl.tensor,
    weight: tl.tensor,
    mean: tl.tensor,
    inverse: tl.tensor,
    x_gradient: tl.tensor,
    weight_sums: tl.tensor,
    bias_sums: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    height: tl.constexpr,
    width: tl.constexpr,
) -> None:
    # With u = (x - mean) / deviation and g = gradient * weight: dx = (g - mean(g) - u mean(g u)) / deviation,
    # dweight = sum gradient * u, dbias = sum gradient.
    column = tl.arange(0, width)
    of_weight = tl.zeros([width], dtype=tl.float32)
    of_bias = tl.zeros([width], dtype=tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(rows, height), tl.num_programs(0)):
        row = tile * height + tl.arange(0, height).to(tl.int64)
        exists = (row < rows)[:, None] & (column < columns)[None, :]
        place = row[:, None] * columns + column[None, :]
        inverses = tl.load(inverse + row, mask=row < rows, other=0)[:, None]
        means = tl.load(mean + row, mask=row < rows, other=0)[:, None]
        units = (tl.load(x + place, mask=exists, other=0).to(tl.float32) - means) * inverses
        units = tl.where(exists, units, 0)
        gradients = tl.load(gradient + place, mask=exists, other=0).to(tl.float32)
        if weight_sums is not None:
            of_weight += tl.sum(gradients * units, axis=0)
        if bias_sums is not None:
            of_bias += tl.sum(gradients, axis=0)
        if weight is not None:
            gradients *= tl.load(weight + column, mask=column < columns, other=0).to(tl.float32)[None, :]
        along = tl.sum(gradients * units, axis=1) / columns
        shift = tl.sum(gradients, axis=1) / columns
        tl.store(x_gradient + place, (gradients - shift[:, None] - units * along[:, None]) * inverses, mask=exists)
    if weight_sums is not None:
        tl.store(weight_sums + tl.program_id(0) * columns + column, of_weight, mask=column < columns)
    if bias_sums is not None:
        tl.store(bias_sums + tl.program_id(0) * columns + column, of_bias, mask=column < columns)
