"""Bias, dropout and residual in one pass each way, by the masks of `megatron.mpu.random_bits`, bit for bit.

Nothing of the size of the tensors is kept for the backward pass, which draws the mask again and sums the bias's gradient.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from megatron.fused_kernels import reference
from megatron.fused_kernels.dropout_masks import column_words, is_kept
from megatron.fused_kernels.rows import as_rows, blocks_of
from megatron.fused_kernels.tiles import is_fusable
from megatron.mpu.random_bits import first_kept


def bias_dropout_add(
    x: Tensor, bias: Tensor | None, residual: Tensor, rows: Tensor | None, probability: float
) -> Tensor:
    """See reference.bias_dropout_add."""
    if not is_fusable(x, bias, residual) or (bias is None and rows is None):
        return reference.bias_dropout_add(x, bias, residual, rows, probability)
    output: Tensor = _BiasDropoutAdd.apply(x, bias, residual, rows, probability)
    return output


class _BiasDropoutAdd(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor | None, residual: Tensor, rows: Tensor | None, probability: float
    ) -> Tensor:
        values, rest = as_rows(x), as_rows(residual)
        words = None if rows is None else rows.reshape(-1).contiguous()
        ctx.save_for_backward(words)
        ctx.probability = probability
        ctx.dtype, ctx.bias_dtype = x.dtype, None if bias is None else bias.dtype
        blocks = blocks_of(*values.shape)
        output = torch.empty(values.shape, dtype=residual.dtype, device=x.device)
        bias_dropout_add_forward[blocks.grid](
            *(values, None if bias is None else bias.contiguous(), rest, words, output),
            *(blocks.rows, blocks.columns, values.stride(0), rest.stride(0)),
            *(first_kept(probability), 1 / (1 - probability)),
            height=blocks.height,
            width=blocks.width,
        )
        return output.view(residual.shape)

    @staticmethod
    @once_differentiable  # type: ignore[misc,untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, Tensor, None, None]:
        (words,) = ctx.saved_tensors
        bias_gradient: Tensor | None = None
        if words is None:
            bias_gradient = as_rows(gradient).sum(dim=0, dtype=torch.float32).to(ctx.bias_dtype)
            return gradient.to(ctx.dtype), bias_gradient, gradient, None, None
        upstream = as_rows(gradient)
        blocks = blocks_of(*upstream.shape)
        x_gradient = torch.empty(upstream.shape, dtype=ctx.dtype, device=gradient.device)
        grid = blocks.summing_grid
        sums: Tensor | None = None
        if ctx.bias_dtype is not None:
            sums = gradient.new_empty((grid[0], blocks.columns), dtype=torch.float32)
        bias_dropout_add_backward[grid](
            *(upstream, words, x_gradient, sums, blocks.rows, blocks.columns, upstream.stride(0)),
            *(first_kept(ctx.probability), 1 / (1 - ctx.probability)),
            height=blocks.height,
            width=blocks.width,
        )
        if sums is not None:
            bias_gradient = sums.sum(dim=0).to(ctx.bias_dtype)
        return x_gradient.view(gradient.shape), bias_gradient, gradient, None, None


@triton.jit
def bias_dropout_add_forward(
    values: tl.tensor,
    bias: tl.tensor,
    residual: tl.tensor,
    words: tl.tensor,
    output: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    stride: tl.tensor,
    residual_stride: tl.tensor,
    first_kept: tl.tensor,
    scale: tl.tensor,
    height: tl.constexpr,
    width: tl.constexpr,
) -> None:
    row = tl.program_id(0) * height + tl.arange(0, height).to(tl.int64)[:, None]
    column = tl.program_id(1) * width + tl.arange(0, width)[None, :]
    exists = (row < rows) & (column < columns)
    moved = tl.load(values + row * stride + column, mask=exists, other=0).to(tl.float32)
    if bias is not None:
        moved += tl.load(bias + column, mask=column < columns, other=0).to(tl.float32)
    if words is not None:
        number = column_words(column)
        word = tl.load(words + row, mask=row < rows, other=0)
        kept = is_kept(word, number, first_kept)
        moved = tl.where(kept, moved * scale, 0.0)
    moved += tl.load(residual + row * residual_stride + column, mask=exists, other=0).to(tl.float32)
    tl.store(output + row * columns + column, moved, mask=exists)


@triton.jit
def bias_dropout_add_backward(
    upstream: tl.tensor,
    words: tl.tensor,
    x_gradient: tl.tensor,
    sums: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    stride: tl.tensor,
    first_kept: tl.tensor,
    scale: tl.tensor,
    height: tl.constexpr,
    width: tl.constexpr,
) -> None:
    column = tl.program_id(1) * width + tl.arange(0, width)[None, :]
    number = column_words(column)
    total = tl.zeros([height, width], dtype=tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(rows, height), tl.num_programs(0)):
        row = tile * height + tl.arange(0, height).to(tl.int64)[:, None]
        exists = (row < rows) & (column < columns)
        gradient = tl.load(upstream + row * stride + column, mask=exists, other=0).to(tl.float32)
        word = tl.load(words + row, mask=row < rows, other=0)
        kept = is_kept(word, number, first_kept)
        gradient = tl.where(kept, gradient * scale, 0.0)
        tl.store(x_gradient + row * columns + column, gradient, mask=exists)
        total += gradient
    if sums is not None:
        place = sums + tl.program_id(0).to(tl.int64) * columns + column
        tl.store(place, tl.sum(total, axis=0)[None, :], mask=column < columns)
