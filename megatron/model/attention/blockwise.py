"""Causal attention for training on a CPU: the products of many heads at once, a block of queries with the keys that they see.

A block's scores and their softmax are in fp32 at least; the weights are rounded to the type of the values, as every product is. The
backward pass computes the weights of each block again, so that nothing is kept but queries, keys and values: all else is as large as one
block. Keys that no query of a block sees (later ones, those before the window) are in no product.

Shapes: `s` sequence, `b` micro-batch, `n` local query heads, `k` local key/value heads, `g` = n / k, `d` head size; of one block: `c` of the
b k key/value heads, `m` queries, `w` keys.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from megatron.model.attention.mask import causal_mask

SCORES_PER_THREAD = 2**19
"""The scores of a block, so that they stay in a core's cache; one head has more where its sequence is long."""

FEWEST_QUERIES, MOST_QUERIES = 128, 512
"""Of a block: an eighth of the keys that a query sees, within these. Scores at the borders are computed and not seen."""


def blockwise_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    window: int | None = None,
    slopes: Tensor | None = None,
    keep_weights: bool = False,
) -> Tensor:
    """`softmax(q k^T / sqrt(d)) v`, causal: query [b, n, s, d], key and value [b, k, s, d] -> [b, n, s, d], in memory [s, b, n, d].

    window: how many latest tokens each query sees, itself included, None = all. slopes: [n] in fp32 at least, what a score of each
    head loses for a token of distance (ALiBi); they have no gradient. keep_weights: for the backward pass, instead of computing them
    again. Differentiable once.
    """
    mixed: Tensor = _Blockwise.apply(query, key, value, window, slopes, keep_weights)
    return mixed


class _Blockwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        window: int | None,
        slopes: Tensor | None,
        keep_weights: bool,
    ) -> Tensor:
        heads = _Heads.of(query, key, window, slopes)
        scoring, values = heads.scoring(), value.flatten(0, 1).contiguous()
        rows, count, length, width = query.shape
        mixed = query.new_empty(length, rows, count, width).permute(1, 2, 0, 3)  # as the output projection reads it
        by_key_head = _grouped(mixed, key)
        kept = []
        for block in heads.blocks():
            weights = scoring.weights(block)
            product = weights @ values[block.heads, block.keys]  # [c, g m, d]
            by_key_head[block.heads, :, block.queries] = product.unflatten(1, (heads.group, -1))
            if keep_weights:
                kept.append(weights)
        ctx.window = window
        ctx.save_for_backward(query, key, value, slopes, *kept)
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, slopes, *kept = ctx.saved_tensors
        heads = _Heads.of(query, key, ctx.window, slopes)
        scoring = None if kept else heads.scoring()
        values, gradients = value.flatten(0, 1).contiguous(), _grouped(gradient, key).contiguous()
        # The blocks' summands for a key are added up in fp32.
        of_keys, of_values = (torch.zeros_like(heads.keys, dtype=heads.wide) for _ in range(2))
        of_queries = torch.empty_like(heads.queries)
        for number, block in enumerate(heads.blocks()):
            seen = block.heads, block.keys
            weights, of_mixed = kept[number] if scoring is None else scoring.weights(block), _block(gradients, block)
            of_weights = of_mixed @ values[seen].mT  # [c, g m, w]
            of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            product = (of_scores @ heads.keys[seen]).mul_(heads.scale)
            of_queries[block.heads, :, block.queries] = product.unflatten(1, (heads.group, -1))
            of_keys[seen] += of_scores.mT @ _block(heads.queries, block)
            of_values[seen] += weights.mT @ of_mixed
        of_keys *= heads.scale
        return (
            of_queries.reshape(query.shape),
            of_keys.to(key.dtype).reshape(key.shape),
            of_values.to(value.dtype).reshape(value.shape),
            None,
            None,
            None,
        )


@dataclass(frozen=True)
class _Block:
    """Which of the key/value heads, of their queries and of their keys a block has."""

    heads: slice
    queries: slice
    keys: slice


@dataclass(frozen=True)
class _Heads:
    """queries: [b k, g, s, d] and keys: [b k, s, d], contiguous; biases: what scores lose for a token of distance, [b k, g, 1, 1]."""

    queries: Tensor
    keys: Tensor
    window: int | None
    biases: Tensor | None

    @classmethod
    def of(cls, query: Tensor, key: Tensor, window: int | None, slopes: Tensor | None) -> _Heads:
        biases = None
        if slopes is not None:
            biases = slopes.view(1, key.shape[1], -1).expand(len(query), -1, -1).flatten(0, 1)[..., None, None]
        return cls(_grouped(query, key).contiguous(), key.flatten(0, 1).contiguous(), window, biases)

    @property
    def group(self) -> int:
        """Query heads of a key/value head."""
        return self.queries.shape[1]

    @property
    def scale(self) -> float:
        """What scores are multiplied by."""
        return 1 / math.sqrt(self.queries.shape[-1])

    @property
    def wide(self) -> torch.dtype:
        """The type of scores and sums."""
        return torch.promote_types(self.queries.dtype, torch.float32)

    def blocks(self) -> Iterator[_Block]:
        """All of them, those of the same heads one after the other."""
        count, group, length, _ = self.queries.shape
        window = length if self.window is None else min(self.window, length)
        queries = min(max(FEWEST_QUERIES, window // 8), MOST_QUERIES, length)
        longest = min(window + queries, length)
        heads = max(SCORES_PER_THREAD * torch.get_num_threads() // (group * queries * longest), 1)
        for head in range(0, count, heads):
            for begin in range(0, length, queries):
                end = min(begin + queries, length)
                first = 0 if self.window is None else max(begin + 1 - self.window, 0)
                yield _Block(slice(head, head + heads), slice(begin, end), slice(first, end))

    def scoring(self) -> _Scoring:
        """What gives the weights of each block."""
        return _Scoring(self, self.keys.to(self.wide), {})


@dataclass(frozen=True)
class _Scoring:
    """keys: those of the heads in the type of scores; hidden: what blocks of the same size share, see `_hidden`."""

    heads: _Heads
    keys: Tensor
    hidden: dict[tuple[int, int], Tensor]

    def weights(self, block: _Block) -> Tensor:
        """[c, g m, w], in the type of the queries; those of the same key/value head stand below each other."""
        heads = self.heads
        queries = _block(heads.queries, block).to(heads.wide) * heads.scale
        scores = queries @ self.keys[block.heads, block.keys].mT
        self._hide(scores.unflatten(1, (heads.group, -1)), block)
        weights: Tensor = scores.softmax(dim=-1).to(heads.queries.dtype)
        return weights

    def _hide(self, scores: Tensor, block: _Block) -> None:
        """Add to scores [c, g, m, w], in place, what follows from the places of their queries and keys."""
        queries, keys = scores.shape[-2:]
        biases, window = self.heads.biases, self.heads.window
        if biases is not None:
            # Of all scores of a query the same amount may be taken: the distance from the block's last query serves them all.
            scores -= biases[block.heads] * torch.arange(keys - 1, -1, -1, dtype=scores.dtype)
        if window is None:
            keys = queries  # earlier ones are seen by all queries of the block
        if (queries, keys) not in self.hidden:
            self.hidden[queries, keys] = _hidden(queries, keys, window, scores.dtype)
        scores[..., -keys:] += self.hidden[queries, keys]


def _grouped(heads: Tensor, key: Tensor) -> Tensor:
    """[b, n, s, d] -> [b k, g, s, d]."""
    grouped: Tensor = heads.unflatten(1, (key.shape[1], -1))
    return grouped.flatten(0, 1)


def _block(heads: Tensor, block: _Block) -> Tensor:
    """[b k, g, s, d] -> [c, g m, d]."""
    return heads[block.heads, :, block.queries].flatten(1, 2)


def _hidden(queries: int, keys: int, window: int | None, dtype: torch.dtype) -> Tensor:
    """[m, w] for the last m of w places: -infinity where a query does not see a key, 0 elsewhere."""
    seen = causal_mask(queries, keys, window=window, device=torch.device("cpu"))
    return torch.zeros(queries, keys, dtype=dtype).masked_fill_(~seen, float("-inf"))
