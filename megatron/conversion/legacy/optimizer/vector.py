"""A vector that parameters were laid into one after another, and that lies in pieces in several files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Vector:
    """runs: what it consists of, in order; each is flat, or a whole parameter in its own shape."""

    runs: tuple[Tensor, ...]

    @property
    def length(self) -> int:
        """Number of values, padding included."""
        return sum(run.numel() for run in self.runs)

    def take(self, start: int, shape: tuple[int, ...]) -> Tensor:
        """The tensor of this shape whose values begin at `start`; a view where it lies in one run.

        Raises ValueError where the vector ends before, or holds parameters of other shapes there.
        """
        parts = list(self._parts(start, shape))
        if sum(part.numel() for part in parts) != math.prod(shape):
            raise ValueError(f"{self.length} values, too few for {list(shape)} from {start} on")
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).view(shape)

    def _parts(self, start: int, shape: tuple[int, ...]) -> Iterator[Tensor]:
        begin, stop = 0, start + math.prod(shape)
        for run in self.runs:
            low, high = max(start, begin), min(stop, begin + run.numel())
            if low < high:
                if run.dim() > 1 and (begin != start or run.shape != shape):
                    raise ValueError(f"{list(run.shape)} from {begin} on, not {list(shape)} from {start} on")
                yield run.reshape(-1)[low - begin : high - begin]
            begin += run.numel()
