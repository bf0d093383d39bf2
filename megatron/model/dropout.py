"""Dropout whose masks are functions of sample, layer and position, and so are the same on whatever ranks the layout puts them.

Shapes: `s` sequence, or its local part under sequence and context parallelism, `b` micro-batch, `h` hidden.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from megatron.model.dropout_keys import DropoutKeys
from megatron.model.spec import BuildContext
from megatron.mpu.random_bits import dropped, mixed, numbered_words, place_word


class HiddenDropout(nn.Module):
    """Zeroes each element with `probability` in training and scales the rest up.

    layer: what tells the masks from those of other modules. A rank that holds a part of the sequence draws that part of its mask.
    """

    def __init__(self, *, probability: float, layer: object, context: BuildContext) -> None:
        super().__init__()
        self.probability = probability
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
        if not self.is_active:
            return hidden
        length = hidden.shape[0]
        words = needed(keys).words(self._part * length, length)
        return drop(hidden, mixed(words ^ place_word("hidden", self._layer, place)), self.probability)


def drop(values: Tensor, rows: Tensor, probability: float) -> Tensor:
    """`values` [..., c], each zeroed with `probability`, else scaled up; rows: a mixed word for each last row, int32 [...].

    Nothing of the size of `values` is kept for the backward pass, which draws the mask again.
    """
    columns = numbered_words(0, values.shape[-1], values.device)
    rest: Tensor = _Drop.apply(values, rows, columns, probability)
    return rest


def needed(keys: DropoutKeys | None) -> DropoutKeys:
    """The keys; ValueError where there are none."""
    if keys is None:
        raise ValueError("a model with dropout needs the dropout_keys of its samples to train")
    return keys


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, rows: Tensor, columns: Tensor, probability: float) -> Tensor:
        ctx.save_for_backward(rows, columns)
        ctx.probability = probability
        return _without_dropped(values, rows, columns, probability)

    @staticmethod
    @once_differentiable  # type: ignore[misc,untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        rows, columns = ctx.saved_tensors
        return _without_dropped(gradient, rows, columns, ctx.probability), None, None, None


def _without_dropped(values: Tensor, rows: Tensor, columns: Tensor, probability: float) -> Tensor:
    return values.masked_fill(dropped(rows, columns, probability), 0).mul_(1 / (1 - probability))
