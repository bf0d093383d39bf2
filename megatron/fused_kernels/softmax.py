"""Softmax of attention scores with a factor and a mask: the scores are read once, the weights written once.

A row is a query's scores of all keys. Of a row's scores only those of keys that the query sees are read.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from megatron.fused_kernels import reference
from megatron.fused_kernels.tiles import LONGEST_ROW, is_fusable, row_tiles


def causal_softmax(scores: Tensor, *, scale: float | None = None) -> Tensor:
    """See reference.causal_softmax."""
    if not is_fusable(scores) or scores.shape[-1] > LONGEST_ROW:
        return reference.causal_softmax(scores, scale=scale)
    weights: Tensor = _Softmax.apply(scores, None, 1.0 if scale is None else float(scale))
    return weights


def masked_softmax(scores: Tensor, hidden: Tensor, *, scale: float | None = None) -> Tensor:
    """See reference.masked_softmax."""
    if not is_fusable(scores) or scores.shape[-1] > LONGEST_ROW:
        return reference.masked_softmax(scores, hidden, scale=scale)
    weights: Tensor = _Softmax.apply(scores, hidden, 1.0 if scale is None else float(scale))
    return weights


class _Softmax(torch.autograd.Function):
    """Of scores [b, n, s, S]; causal where nothing is said about what is hidden. Keeps the weights."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, hidden: Tensor | None, scale: float) -> Tensor:
        scores = scores.contiguous()
        heads, queries, keys = scores.shape[-3:]
        tiles = row_tiles(scores.numel() // keys, keys)
        weights = torch.empty_like(scores)
        # A mask that is shared by heads or samples is read where it lies: its steps along them are 0.
        steps = (0, 0, 0, 0) if hidden is None else hidden.expand(scores.shape).stride()
        softmax_forward[(tiles.count,)](
            *(scores, hidden, weights, tiles.rows, heads, queries, keys, *steps, scale),
            height=tiles.height,
            width=tiles.width,
            num_warps=tiles.warps,
        )
        ctx.save_for_backward(weights)
        ctx.scale, ctx.is_causal = scale, hidden is None
        return weights

    @staticmethod
    @once_differentiable  # type: ignore[misc,untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (weights,) = ctx.saved_tensors
        tiles = row_tiles(weights.numel() // weights.shape[-1], weights.shape[-1])
        result = torch.empty_like(weights)
        softmax_backward[(tiles.count,)](
            *(gradient.contiguous(), weights, result, tiles.rows, weights.shape[-2], tiles.columns, ctx.scale),
            is_causal=ctx.is_causal,
            height=tiles.height,
            width=tiles.width,
            num_warps=tiles.warps,
        )
        return result, None, None


@triton.jit
def softmax_forward(
    scores: tl.tensor,
    hidden: tl.tensor,
    weights: tl.tensor,
    rows: tl.tensor,
    heads: tl.tensor,
    queries: tl.tensor,
    keys: tl.tensor,
    sample_step: tl.tensor,
    head_step: tl.tensor,
    query_step: tl.tensor,
    key_step: tl.tensor,
    scale: tl.tensor,
    height: tl.constexpr,
    width: tl.constexpr,
) -> None:
    row = tl.program_id(0) * height + tl.arange(0, height).to(tl.int64)
    key = tl.arange(0, width)
    query = row % queries
    exists = (row < rows)[:, None] & (key < keys)[None, :]
    place = row[:, None] * keys + key[None, :]
    if hidden is None:
        sees = exists & (key[None, :] <= (query + (keys - queries))[:, None])
    else:
        head, sample = row // queries % heads, row // queries // heads
        start = sample * sample_step + head * head_step + query * query_step
        is_hidden = tl.load(hidden + start[:, None] + key[None, :] * key_step, mask=exists, other=1)
        sees = exists & (is_hidden == 0)
    values = tl.load(scores + place, mask=sees, other=-float("inf")).to(tl.float32) * scale
    values = tl.where(sees, values, -float("inf"))  # whatever the sign of the factor
    exponentials = tl.exp(values - tl.max(values, axis=1)[:, None])
    tl.store(weights + place, exponentials / tl.sum(exponentials, axis=1)[:, None], mask=exists)


@triton.jit
def softmax_backward(
    gradient: tl.tensor,
    weights: tl.tensor,
    result: tl.tensor,
    rows: tl.tensor,
    queries: tl.tensor,
    keys: tl.tensor,
    scale: tl.tensor,
    is_causal: tl.constexpr,
    height: tl.constexpr,
    width: tl.constexpr,
) -> None:
    # With weights w: dscores = scale * w * (gradient - sum w gradient); where w is 0 the gradient does not count.
    row = tl.program_id(0) * height + tl.arange(0, height).to(tl.int64)
    key = tl.arange(0, width)
    exists = (row < rows)[:, None] & (key < keys)[None, :]
    place = row[:, None] * keys + key[None, :]
    sees = exists
    if is_causal:
        sees = exists & (key[None, :] <= (row % queries + (keys - queries))[:, None])
    values = tl.load(weights + place, mask=sees, other=0).to(tl.float32)
    gradients = tl.load(gradient + place, mask=sees, other=0).to(tl.float32)
    along = tl.sum(values * gradients, axis=1)
    tl.store(result + place, values * (gradients - along[:, None]) * scale, mask=exists)
