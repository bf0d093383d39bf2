"""What a tensor's values are like, in one pass over them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from megatron.checkpointing.inspecting.blocks import blocks


@dataclass(frozen=True)
class Statistics:
    """Of the finite values of a tensor: their Euclidean norm, mean, standard deviation, least and largest (0 of none), all in fp64.

    not_finite, zeros: how many of all `elements` are NaN or infinite, and 0.
    """

    elements: int
    not_finite: int
    zeros: int
    norm: float
    mean: float
    deviation: float
    least: float
    largest: float

    @property
    def magnitude(self) -> float:
        """The largest absolute value."""
        return max(-self.least, self.largest)

    @property
    def root_mean_square(self) -> float:
        """Of the finite values."""
        return self.norm / math.sqrt(max(self.elements - self.not_finite, 1))


def measure(tensor: Tensor) -> Statistics:
    """The statistics of a tensor of floating-point numbers."""
    not_finite, zeros, total, squares = 0, 0, 0.0, 0.0
    least, largest = math.inf, -math.inf
    for (block,) in blocks(tensor):
        low, high = map(float, block.aminmax()) if block.numel() else (math.inf, -math.inf)
        if not (math.isfinite(low) and math.isfinite(high)):  # NaN and infinities show in these two
            finite = block[block.isfinite()]
            not_finite += block.numel() - finite.numel()
            block = finite
            low, high = map(float, block.aminmax()) if block.numel() else (math.inf, -math.inf)
        least, largest = min(least, low), max(largest, high)
        zeros += block.numel() - int(block.count_nonzero())
        total += float(block.sum(dtype=torch.float64))
        squares += float(torch.linalg.vector_norm(block, dtype=torch.float64)) ** 2
    counted = tensor.numel() - not_finite
    if not counted:
        return Statistics(tensor.numel(), not_finite, 0, 0.0, 0.0, 0.0, 0.0, 0.0)
    mean = total / counted
    variance = max(squares / counted - mean**2, 0.0)
    return Statistics(tensor.numel(), not_finite, zeros, math.sqrt(squares), mean, math.sqrt(variance), least, largest)
