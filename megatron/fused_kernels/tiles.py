"""How work is cut into the programs of a kernel: tiles of whole rows, or blocks of a flat tensor.

Triton's blocks have sizes that are powers of two; what stands out over a row's end is masked. Sizes follow from shapes by rule and not
by trial, so that the same shapes are computed in the same order on every device and in every run.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LONGEST_ROW = 65_536
"""Elements of a row that a program holds at once, at most."""

FUSED_TYPES = (torch.float16, torch.bfloat16, torch.float32)

PARTIAL_SUMS = 512
"""Programs that sum over rows, at most: enough to keep any device of today busy."""

_TILE = 2048  # elements, where rows are short
_ELEMENTS_PER_WARP = 512


@dataclass(frozen=True)
class Tiles:
    """A matrix [rows, columns] as tiles of `height` rows and `width` columns, of which one covers a row, for programs of `warps` warps."""

    rows: int
    columns: int
    height: int
    width: int
    warps: int

    @property
    def count(self) -> int:
        """How many tiles cover the rows."""
        return ceiling(self.rows, self.height)

    @property
    def partial_sums(self) -> int:
        """How many programs share the tiles where each also sums over the rows it has."""
        return min(self.count, PARTIAL_SUMS)


def row_tiles(rows: int, columns: int) -> Tiles:
    """Tiles for rows of 1 to LONGEST_ROW elements."""
    width = power_of_two(columns)
    height = max(_TILE // width, 1)
    return Tiles(rows, columns, height, width, warps(height * width))


def warps(elements: int) -> int:
    """Warps for a program that holds so many elements at once; 16 are the most that AMD's warps of 64 lanes allow."""
    return min(max(power_of_two(elements // _ELEMENTS_PER_WARP), 4), 16)


def power_of_two(count: int) -> int:
    """The smallest power of two that is not below `count`."""
    return 1 << max(count - 1, 0).bit_length()


def ceiling(count: int, size: int) -> int:
    """How many blocks of `size` cover `count` elements."""
    return -(-count // size)


def is_fusable(*tensors: Tensor | None) -> bool:
    """Whether kernels compute with these: none is empty, and all have one of FUSED_TYPES. Plain torch computes with all others."""
    return all(each is None or (each.dtype in FUSED_TYPES and each.numel() > 0) for each in tensors)
