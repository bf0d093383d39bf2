"""Dropout of hidden states that knows whether the tensor-parallel ranks hold the same values or parts of a sequence.

Shapes: `s` sequence, or its local part under sequence parallelism, `b` micro-batch, `h` hidden.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from megatron.model.spec import BuildContext
from megatron.mpu.random import tensor_parallel_randomness


class HiddenDropout(nn.Module):
    """Zeroes each element with `probability` in training and scales the rest up.

    Replicated hidden states get the same mask on every tensor-parallel rank (the default generators are seeded alike there);
    hidden states split along the sequence get a different one on each.
    """

    def __init__(self, *, probability: float, context: BuildContext) -> None:
        super().__init__()
        self.probability = probability
        self._group = context.tensor_group
        self._is_split = context.sequence_parallel and context.tensor_group.size > 1

    @property
    def is_active(self) -> bool:
        """Whether anything is dropped now."""
        return self.training and self.probability > 0

    def forward(self, hidden: Tensor) -> Tensor:
        """[s, b, h] -> [s, b, h]"""
        if not self.is_active:
            return hidden
        if not self._is_split:
            return F.dropout(hidden, self.probability)
        with tensor_parallel_randomness(self._group):
            return F.dropout(hidden, self.probability)
