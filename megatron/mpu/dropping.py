"""Dropout of values by words: nothing of the size of the values is kept for the backward pass, which draws the mask again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from megatron.mpu.random_bits import dropped, mixed, numbered_words


def drop(values: Tensor, rows: Tensor, probability: float) -> Tensor:
    """`values` [..., c], each zeroed with `probability`, else scaled up; rows: a mixed word for each last row, int32 [...]."""
    if torch.compiler.is_compiling():  # a graph has no use for a cache: it computes them beside the mask
        columns = mixed(torch.arange(values.shape[-1], dtype=torch.int32, device=values.device))
    else:
        columns = numbered_words(0, values.shape[-1], values.device)
    rest: Tensor = _Drop.apply(values, rows, columns, probability)
    return rest


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
