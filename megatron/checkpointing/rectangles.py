"""Hyper-rectangles of a full tensor, and how ranks that hold overlapping ones divide the work of writing it once."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Rectangle:
    """The elements `start[d] <= index[d] < start[d] + size[d]`; a scalar is the rectangle of no dimensions, with one element."""

    start: tuple[int, ...]
    size: tuple[int, ...]

    @property
    def stop(self) -> tuple[int, ...]:
        """One past the last index in every dimension."""
        return tuple(start + size for start, size in zip(self.start, self.size, strict=True))

    @property
    def volume(self) -> int:
        """The number of elements."""
        return math.prod(self.size)

    def contains(self, other: Rectangle) -> bool:
        """Whether every element of `other` is in this rectangle."""
        return all(a <= b for a, b in zip(self.start, other.start, strict=True)) and all(
            a >= b for a, b in zip(self.stop, other.stop, strict=True)
        )


@dataclass(frozen=True)
class Offer:
    """A rectangle that process `rank` holds."""

    rank: int
    rectangle: Rectangle


def overlap(first: Rectangle, second: Rectangle) -> Rectangle | None:
    """The elements in both rectangles; None when there are none."""
    start = tuple(map(max, first.start, second.start))
    stop = tuple(map(min, first.stop, second.stop))
    size = tuple(b - a for a, b in zip(start, stop, strict=True))
    return None if any(length <= 0 for length in size) else Rectangle(start, size)


def subtract(rectangle: Rectangle, hole: Rectangle) -> list[Rectangle]:
    """Disjoint rectangles (at most two a dimension) that cover exactly the elements of `rectangle` outside `hole`."""
    common = overlap(rectangle, hole)
    if common is None:
        return [rectangle]
    rest, start, stop = [], list(rectangle.start), list(rectangle.stop)
    for dimension in range(len(start)):
        # Slice off what lies before and after the hole here; what is left has the hole's extent in this dimension.
        for low, high in ((start[dimension], common.start[dimension]), (common.stop[dimension], stop[dimension])):
            if low < high:
                rest.append(
                    _between(
                        [*start[:dimension], low, *start[dimension + 1 :]],
                        [*stop[:dimension], high, *stop[dimension + 1 :]],
                    )
                )
        start[dimension], stop[dimension] = common.start[dimension], common.stop[dimension]
    return rest


def divide(offers: Iterable[Offer], load: dict[int, int]) -> list[Offer]:
    """Who writes what, so that every offered element is written by exactly one of the ranks that hold it.

    A rectangle that several ranks hold alike goes to the one with the least `load` (elements by rank, updated here); of
    rectangles that overlap in part, the later in order writes only what is left. Sweeps along dimension 0, so the cost
    stays near linear for the thin slices that ZeRO makes.
    """
    holders: dict[Rectangle, list[int]] = {}
    for offer in offers:
        holders.setdefault(offer.rectangle, []).append(offer.rank)
    written: list[Offer] = []
    active: list[Rectangle] = []
    for rectangle in sorted(holders):
        rank = min(holders[rectangle], key=lambda holder: (load.get(holder, 0), holder))
        active = [other for other in active if not rectangle.start or other.stop[0] > rectangle.start[0]]
        parts = [rectangle]
        for other in active:
            parts = [rest for part in parts for rest in subtract(part, other)]
        active += parts
        written += [Offer(rank, part) for part in parts]
        load[rank] = load.get(rank, 0) + sum(part.volume for part in parts)
    return written


def tiles(rectangle: Rectangle, limit: int) -> list[Rectangle]:
    """The rectangle cut into slices, about equal and along its leading dimensions, of at most `limit` (one or more) elements each."""
    if rectangle.volume <= limit:
        return [rectangle]
    dimension = next(number for number, size in enumerate(rectangle.size) if size > 1)
    length = rectangle.size[dimension]
    longest = max(1, limit * length // rectangle.volume)
    slices = -(-length // longest)
    cuts = [rectangle.start[dimension] + length * number // slices for number in range(slices + 1)]
    parts = []
    for low, high in itertools.pairwise(cuts):
        start, stop = list(rectangle.start), list(rectangle.stop)
        start[dimension], stop[dimension] = low, high
        parts += tiles(_between(start, stop), limit)
    return parts


def _between(start: list[int], stop: list[int]) -> Rectangle:
    return Rectangle(tuple(start), tuple(b - a for a, b in zip(start, stop, strict=True)))
