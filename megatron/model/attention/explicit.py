"""Attention computed as it is written: scores, mask, softmax, weighted sum. Memory grows with the square of the sequence.

Shapes: `s` queries, `S` keys, `b` micro-batch, `n` local query heads, `k` local key/value heads, `g` = n / k, `d` head size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from megatron.fused_kernels import reference
from megatron.model.dropout_keys import DropoutKeys
from megatron.mpu.dropping import drop
from megatron.mpu.random_bits import mixed, numbered_words, place_word


@dataclass(frozen=True)
class Softmaxes:
    """The operations by which scores become weights, as in reference.py or fused: where a query sees all keys up to its own, and by a mask."""

    causal: Callable[..., Tensor] = reference.causal_softmax
    masked: Callable[..., Tensor] = reference.masked_softmax


PLAIN = Softmaxes()


def explicit_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    hidden: Tensor | None,
    *,
    bias: Tensor | None = None,
    divisor: int | None = None,
    words: Tensor | None = None,
    dropout: float = 0.0,
    softmaxes: Softmaxes = PLAIN,
) -> Tensor:
    """`softmax(q k^T / sqrt(d)) v`: query [b, n, s, d], key and value [b, k, S, d] -> [b, n, s, d].

    hidden: bool, broadcastable to [b, n, s, S], true where a query does not see a key; None = the bias says so, or without one it sees all
    keys up to its own. bias: [b or 1, n, s, S], in fp32 at least, added to the scores. divisor: scores are kept divided by it, and
    multiplied again in fp32, before the softmax; None = not. words: those of `weight_words`, by which weights are dropped with probability
    `dropout`; None = not. softmaxes: what computes weights where there is no bias. The softmax of half-precision scores is in fp32.
    """
    groups = query.shape[1] // key.shape[1], query.shape[2]
    heads = key.shape[1], -1
    scaled = query / (math.sqrt(query.shape[-1]) * (divisor or 1))
    # The queries of a group stand below each other, so that no product needs copies of their keys and values.
    rows = scaled.unflatten(1, heads).flatten(2, 3)  # [b, k, g s, d]
    scores = (rows @ key.mT).unflatten(2, groups).flatten(1, 2)  # [b, n, s, S]
    if bias is not None:
        assert hidden is None, "a bias says itself what a query does not see"
        if divisor is not None:
            scores = scores.to(torch.promote_types(scores.dtype, torch.float32)) * divisor
        weights = (scores + bias).softmax(dim=-1).to(value.dtype)
    elif hidden is not None:
        weights = softmaxes.masked(scores, hidden, scale=divisor)
    else:
        weights = softmaxes.causal(scores, scale=divisor)
    if words is not None:
        weights = drop(weights, words, dropout)
    by_kv_head = weights.unflatten(1, heads).flatten(2, 3)  # [b, k, g s, S]
    mixed_values: Tensor = (by_kv_head @ value).unflatten(2, groups)  # [b, k, g, s, d]
    return mixed_values.flatten(1, 2)


def weight_words(keys: DropoutKeys, *, length: int, layer: int, first_head: int, heads: int) -> Tensor:
    """int32 [b, n, s]: a random word for each query of `heads` heads, from number `first_head` of all heads of the model."""
    numbers = numbered_words(first_head, heads, keys.keys.device)
    of_heads = mixed(numbers ^ place_word("weights", layer)).unsqueeze(1)  # [n, 1]
    return mixed(keys.words(0, length).T.unsqueeze(1) ^ of_heads)
