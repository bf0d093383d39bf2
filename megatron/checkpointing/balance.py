"""Work shared out so that nobody has much more of it than the others."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

T = TypeVar("T", bound=Hashable)


def balanced(sizes: Mapping[T, int], count: int) -> list[list[T]]:
    """Divide things among `count` shares: from the largest on, each goes to the share that is smallest so far. Each share keeps the order of `sizes`.

    A share is at most the largest thing larger than another. The same on every rank that gives the same things in the same order.
    """
    totals, share_of = [0] * count, dict[T, int]()
    for thing, size in sorted(sizes.items(), key=lambda item: -item[1]):
        share_of[thing] = totals.index(min(totals))
        totals[share_of[thing]] += size
    shares: list[list[T]] = [[] for _ in range(count)]
    for thing in sizes:
        shares[share_of[thing]].append(thing)
    return shares
