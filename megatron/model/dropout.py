"""Dropout whose masks are functions of sample, layer and position, and so are the same on whatever ranks the layout puts them.

Shapes: `s` sequence, or its local part under sequence and context parallelism, `b` micro-batch, `h` hidden.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from megatron.model.dropout_keys import DropoutKeys
from megatron.model.spec import BuildContext
from megatron.mpu.dropping import drop
from megatron.mpu.random_bits import mixed, place_word


class FusedAdd(Protocol):
    """`bias_dropout_add` of megatron/fused_kernels/reference.py, or its kernel."""

    def __call__(
        self, x: Tensor, bias: Tensor | None, residual: Tensor, rows: Tensor | None, probability: float
    ) -> Tensor: ...


class HiddenDropout(nn.Module):
    """Zeroes each element with `probability` in training and scales the rest up.

    layer: what tells the masks from those of other modules; fused_add: what a block adds bias, dropout and residual by in one pass, None =
    one after the other. A rank that holds a part of the sequence draws that part of its mask.
    """

    def __init__(
        self, *, probability: float, layer: object, context: BuildContext, fused_add: FusedAdd | None = None
    ) -> None:
        super().__init__()
        self.probability = probability
        self.fused_add = fused_add
        self._layer = layer
        tensor, sequence = context.tensor_group, context.context_group
        self._part = sequence.rank  # which one of as many equally long parts of the sequence this rank holds
        if context.sequence_parallel:
            self._part = sequence.rank * tensor.size + tensor.rank

    @property
    def is_active(self) -> bool:
        """Whether anything is dropped now."""
        return self.training and self.probability > 0

    def forward(self, hidden: Tensor, keys: DropoutKeys | None, place: str) -> Tensor:
        """[s, b, h] -> [s, b, h]. keys: of the samples; place: where in the layer. Raises ValueError when they are needed and missing."""
        words = self.words(hidden, keys, place)
        return hidden if words is None else drop(hidden, words, self.probability)

    def add(self, residual: Tensor, hidden: Tensor, bias: Tensor | None, words: Tensor | None) -> Tensor:
        """`residual + dropout(hidden + bias)`, all [s, b, h] but the bias [h], None = without; words: those of `words`."""
        if self.fused_add is not None:
            return self.fused_add(hidden, bias, residual, words, self.probability)
        moved = hidden if bias is None else hidden + bias
        return residual + (moved if words is None else drop(moved, words, self.probability))

    def words(self, hidden: Tensor, keys: DropoutKeys | None, place: str) -> Tensor | None:
        """int32 [s, b]: what the mask of each row of the hidden states follows from, None where nothing is dropped."""
        if not self.is_active:
            return None
        length = hidden.shape[0]
        words = needed(keys).words(self._part * length, length)
        return mixed(words ^ place_word("hidden", self._layer, place))


def needed(keys: DropoutKeys | None) -> DropoutKeys:
    """The keys; ValueError where there are none."""
    if keys is None:
        raise ValueError("a model with dropout needs the dropout_keys of its samples to train")
    return keys
