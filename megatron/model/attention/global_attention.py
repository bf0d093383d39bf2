"""Attention computed as it is written: scores, mask, softmax, weighted sum. Memory grows with the square of the sequence.

Shapes: `s` queries, `S` keys, `b` micro-batch, `n` local query heads, `k` local key/value heads, `g` = n / k, `d` head size.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from megatron.model.attention.base import Attention
from megatron.model.attention.mask import causal_mask
from megatron.model.documents import Documents


class GlobalAttention(Attention):
    """`softmax(q k^T / sqrt(d)) v` over the keys a query may see.

    torch computes the softmax of half-precision scores in fp32, so `attention_softmax_in_fp32` always holds. With
    query_key_layer_scaling, the scores of layer l (from 1) are kept divided by l, so that they do not overflow in fp16, and multiplied
    again in fp32 before the softmax: the result is the same.
    """

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None, documents: Documents | None = None
    ) -> Tensor:
        """See Attention.attend."""
        grouped = query.unflatten(1, (key.shape[1], -1))  # [b, k, g, s, d]
        divisor = self.layer + 1 if self.query_key_layer_scaling else 1
        scores = (grouped / (math.sqrt(query.shape[-1]) * divisor)) @ key.unsqueeze(2).mT  # [b, k, g, s, S]
        if self.query_key_layer_scaling:
            scores = scores.to(torch.promote_types(scores.dtype, torch.float32)) * divisor
        length = scores.shape[-1]
        if documents is not None:
            hidden = documents.hidden_keys(self.window).unsqueeze(1)
        elif allowed is not None:
            hidden = ~allowed.unsqueeze(1)
        else:
            hidden = ~causal_mask(length, length, window=self.window, device=scores.device)
        weights = scores.masked_fill(hidden, float("-inf")).softmax(dim=-1).to(value.dtype)
        weights = F.dropout(weights, self.active_dropout)
        return (weights @ value.unsqueeze(2)).flatten(1, 2)  # [b, n, s, d]
