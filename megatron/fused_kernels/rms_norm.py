"""RMSNorm in one pass over the rows forward, and one backward."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from megatron.fused_kernels import reference
from megatron.fused_kernels.tiles import LONGEST_ROW, is_fusable, row_tiles


def rms_norm(x: Tensor, scale: Tensor, *, epsilon: float) -> Tensor:
    """See reference.rms_norm."""
    if not is_fusable(x, scale) or x.shape[-1] > LONGEST_ROW:
        return reference.rms_norm(x, scale, epsilon=epsilon)
    normed: Tensor = _RMSNorm.apply(x, scale, epsilon)
    return normed


class _RMSNorm(torch.autograd.Function):
    """Keeps the input and 1 / sqrt(mean(x^2) + epsilon) of each row, in fp32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, epsilon: float) -> Tensor:
        x, scale = x.contiguous(), scale.contiguous()
        tiles = row_tiles(x.numel() // x.shape[-1], x.shape[-1])
        normed = torch.empty_like(x)
        inverse = x.new_empty(tiles.rows, dtype=torch.float32)
        rms_norm_forward[(tiles.count,)](
            *(x, scale, normed, inverse, tiles.rows, tiles.columns, epsilon),
            height=tiles.height,
            width=tiles.width,
            num_warps=tiles.warps,
        )
        ctx.save_for_backward(x, scale, inverse)
        return normed

    @staticmethod
    @once_differentiable  # type: ignore[misc,untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, scale, inverse = ctx.saved_tensors
        tiles = row_tiles(inverse.numel(), x.shape[-1])
        x_gradient = torch.empty_like(x)
        scale_gradients = x.new_empty((tiles.partial_sums, tiles.columns), dtype=torch.float32)
        rms_norm_backward[(tiles.partial_sums,)](
            *(gradient.contiguous(), x, scale, inverse, x_gradient, scale_gradients, tiles.rows, tiles.columns),
            height=tiles.height,
            width=tiles.width,
            num_warps=tiles.warps,
        )
        return x_gradient, scale_gradients.sum(dim=0).to(scale.dtype), None


@triton.jit
def rms_norm_forward(
    x: tl.tensor,
    scale: tl.tensor,
    normed: tl.tensor,
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
    factors = tl.load(scale + column, mask=column < columns, other=0).to(tl.float32)
    inverses = 1 / tl.sqrt(tl.sum(values * values, axis=1) / columns + epsilon)
    tl.store(inverse + row, inverses, mask=row < rows)
    tl.store(normed + place, values * inverses[:, None] * factors[None, :], mask=exists)


@triton.jit
def rms_norm_backward(
    gradient: tl.tensor,
    x: tl.tensor,
    scale: tl.tensor,
    inverse: tl.tensor,
    x_gradient: tl.tensor,
    scale_gradients: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    height: tl.constexpr,
    width: tl.constexpr,
) -> None:
    # With u = x / root mean square and g = gradient * scale: dx = (g - u mean(g u)) / root mean square, dscale = sum gradient * u.
    column = tl.arange(0, width)
    factors = tl.load(scale + column, mask=column < columns, other=0).to(tl.float32)
    sums = tl.zeros([width], dtype=tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(rows, height), tl.num_programs(0)):
        row = tile * height + tl.arange(0, height).to(tl.int64)
        exists = (row < rows)[:, None] & (column < columns)[None, :]
        place = row[:, None] * columns + column[None, :]
        inverses = tl.load(inverse + row, mask=row < rows, other=0)[:, None]
        units = tl.load(x + place, mask=exists, other=0).to(tl.float32) * inverses
        gradients = tl.load(gradient + place, mask=exists, other=0).to(tl.float32)
        sums += tl.sum(gradients * units, axis=0)
        gradients *= factors[None, :]
        along = tl.sum(gradients * units, axis=1) / columns
        tl.store(x_gradient + place, (gradients - units * along[:, None]) * inverses, mask=exists)
    tl.store(scale_gradients + tl.program_id(0) * columns + column, sums, mask=column < columns)
