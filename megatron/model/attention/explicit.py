"""Attention computed as it is written: scores, mask, softmax, weighted sum. Memory grows with the square of the sequence.

Shapes: `s` queries, `S` keys, `b` micro-batch, `n` local query heads, `k` local key/value heads, `g` = n / k, `d` head size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from megatron.model.dropout import drop
from megatron.model.dropout_keys import DropoutKeys
from megatron.mpu.random_bits import mixed, numbered_words, place_word


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
) -> Tensor:
    """`softmax(q k^T / sqrt(d)) v`: query [b, n, s, d], key and value [b, k, S, d] -> [b, n, s, d].

    hidden: bool, broadcastable to [b, n, s, S], true where a query does not see a key; None = the bias says so. bias: [b or 1, n, s, S], in
    fp32 at least, added to the scores. divisor: scores are kept divided by it, and multiplied again in fp32, before the softmax; None = not.
    words: those of `weight_words`, by which weights are dropped with probability `dropout`; None = not. torch computes the softmax of
    half-precision scores in fp32.
    """
    groups = query.shape[1] // key.shape[1], query.shape[2]
    scaled = query / (math.sqrt(query.shape[-1]) * (divisor or 1))
    # The queries of a group stand below each other, so that no product needs copies of their keys and values.
    rows = scaled.unflatten(1, (key.shape[1], -1)).flatten(2, 3)  # [b, k, g s, d]
    scores = (rows @ key.mT).unflatten(2, groups)  # [b, k, g, s, S]
    if divisor is not None:
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32)) * divisor
    if bias is not None:
        scores = scores + bias.unflatten(1, (key.shape[1], -1))
    if hidden is not None:
        scores = scores.masked_fill(hidden.unsqueeze(1) if hidden.dim() == 4 else hidden, float("-inf"))
    weights = scores.softmax(dim=-1).to(value.dtype)
    if words is not None:
        weights = drop(weights, words.unflatten(1, (key.shape[1], -1)), dropout)
    mixed_values: Tensor = (weights.flatten(2, 3) @ value).unflatten(2, groups)  # [b, k, g, s, d]
    return mixed_values.flatten(1, 2)


def weight_words(keys: DropoutKeys, *, length: int, layer: int, first_head: int, heads: int) -> Tensor:
    """int32 [b, n, s]: a random word for each query of `heads` heads, from number `first_head` of all heads of the model."""
    numbers = numbered_words(first_head, heads, keys.keys.device)
    of_heads = mixed(numbers ^ place_word("weights", layer)).unsqueeze(1)  # [n, 1]
    return mixed(keys.words(0, length).T.unsqueeze(1) ^ of_heads)
