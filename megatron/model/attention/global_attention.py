"""Attention computed as it is written (explicit.py), at all times."""

from __future__ import annotations

from torch import Tensor

from megatron.model.attention.base import Attention
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
        return self.attend_explicitly(query, key, value, allowed, documents)
