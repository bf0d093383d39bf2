"""From a flat run of a parameter shard to hyper-rectangles of the full, layout-free tensor.

ZeRO gives a process a run of consecutive values of the flattened local shard; tensor parallelism cuts the shard out of the full
tensor, in several chunks when matrices are fused. The pieces made here say which part of the full tensor each value is, so that
any layout can read what any other wrote. All pieces are views: writing into them writes the optimizer's memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from megatron.engine.protocol import Piece
from megatron.mpu.shard import Chunk, ShardInfo


@dataclass(frozen=True)
class Rectangle:
    """`sizes` indices from `offsets` on, along each dimension."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]


def shard_pieces(info: ShardInfo, start: int, values: Tensor) -> list[Piece]:
    """The pieces of the full tensor that `values` (1-D) are, `values[0]` being element `start` of the flattened local shard.

    Vocabulary padding is left out: it belongs to no checkpoint.
    """
    pieces = []
    taken = 0
    for rectangle in rectangles(info.local_shape, start, values.numel()):
        count = math.prod(rectangle.sizes)
        view = values.narrow(0, taken, count).view(rectangle.sizes)
        taken += count
        for part in _in_full_tensor(info, Piece(rectangle.offsets, view)):
            clipped = _without_padding(info, part)
            if clipped is not None:
                pieces.append(clipped)
    return pieces


def rectangles(shape: tuple[int, ...], start: int, length: int) -> Iterator[Rectangle]:
    """Cut the run [start, start + length) of a row-major tensor into at most 2d - 1 rectangles, in order of memory.

    Each rectangle is contiguous in memory: whole slices of some dimension at fixed indices of the dimensions before it.
    """
    if length <= 0:
        return
    if not shape:
        yield Rectangle((), ())
        return
    stride = math.prod(shape[1:])
    first, last = start // stride, (start + length - 1) // stride
    if first == last:
        for inner in rectangles(shape[1:], start - first * stride, length):
            yield _at(first, inner)
        return
    head = (first + 1) * stride - start
    if head < stride:
        for inner in rectangles(shape[1:], stride - head, head):
            yield _at(first, inner)
        first += 1
    tail = start + length - last * stride
    whole_end = last + 1 if tail == stride else last
    if whole_end > first:
        yield Rectangle((first, *(0 for _ in shape[1:])), (whole_end - first, *shape[1:]))
    if tail < stride:
        for inner in rectangles(shape[1:], 0, tail):
            yield _at(last, inner)


def _at(index: int, inner: Rectangle) -> Rectangle:
    return Rectangle((index, *inner.offsets), (1, *inner.sizes))


def _in_full_tensor(info: ShardInfo, piece: Piece) -> Iterator[Piece]:
    """Shift a piece of the local shard to its place in the full tensor, splitting it where fused parts meet."""
    if info.dim is None or not info.is_sharded:
        yield piece
        return
    for chunk in info.chunks():
        part = _intersect(piece, info.dim, chunk)
        if part is not None:
            yield part


def _intersect(piece: Piece, dim: int, chunk: Chunk) -> Piece | None:
    low = max(piece.offsets[dim], chunk.local_start)
    high = min(piece.offsets[dim] + piece.tensor.shape[dim], chunk.local_start + chunk.length)
    if low >= high:
        return None
    moved = low - chunk.local_start + chunk.full_start
    offsets = (*piece.offsets[:dim], moved, *piece.offsets[dim + 1 :])
    return Piece(offsets, piece.tensor.narrow(dim, low - piece.offsets[dim], high - low))


def _without_padding(info: ShardInfo, piece: Piece) -> Piece | None:
    if info.valid_rows is None:
        return piece
    rows = min(piece.offsets[0] + piece.tensor.shape[0], info.valid_rows) - piece.offsets[0]
    return Piece(piece.offsets, piece.tensor[:rows]) if rows > 0 else None
