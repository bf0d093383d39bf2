"""How kernels that know nothing of a row as a whole cut tensors: as rows with a stride, in blocks of some of their columns.

Unlike those of `tiles.py` these take rows of any length, and halves of rows where they lie.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from megatron.fused_kernels.tiles import ceiling, power_of_two

_WIDEST = 1024  # columns: 8 for each of 128 threads, 16 bytes of half precision
_BLOCK = 2048  # elements, about
_SUMMED = 4  # blocks that a program sums over, at least: its sum is written as well
_SUMMING_PROGRAMS = 2048  # enough for any device of today to be busy


@dataclass(frozen=True)
class Blocks:
    """A matrix [rows, columns] in blocks of `height` rows and `width` columns, both powers of two."""

    rows: int
    columns: int
    height: int
    width: int

    @property
    def grid(self) -> tuple[int, int]:
        """A program for each block."""
        return ceiling(self.rows, self.height), ceiling(self.columns, self.width)

    @property
    def summing_grid(self) -> tuple[int, int]:
        """Fewer programs, which share the blocks below each other and sum over their rows."""
        down, across = self.grid
        return min(ceiling(down, _SUMMED), max(_SUMMING_PROGRAMS // across, 1)), across


def blocks_of(rows: int, columns: int) -> Blocks:
    """Blocks for a matrix of this size, neither of it 0."""
    width = min(power_of_two(columns), _WIDEST)
    return Blocks(rows, columns, _BLOCK // width, width)


def as_rows(x: Tensor) -> Tensor:
    """x [..., c] as [rows, c] with columns side by side: a view wherever strides allow it, as for a half of a wider tensor."""
    rows = x.reshape(-1, x.shape[-1])
    return rows if rows.stride(-1) == 1 else rows.contiguous()
