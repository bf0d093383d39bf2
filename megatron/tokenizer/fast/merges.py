"""Whether two ways to apply the merges of a byte-pair encoding give the same ids for every text.

`tokenizers` merges the pairs that are listed, the first of the list first. Faster engines know tokens only: they merge two neighbours
whenever their bytes together are a token, the smallest id first. Both are the same when

1. the ids of the merged tokens rise along the list of merges, and
2. a token that is merged alone, with the tokens of smaller ids, ends as two parts that are a listed pair of it.

For when an engine merges two neighbours into a token, no merge has crossed the borders of its bytes, and all merges of smaller ids are
done: inside the borders stand the two parts of (2), which `tokenizers` merges at the same moment because of (1), and at the same place
because both take the leftmost of equals. A token that ends in more than two parts is merged by neither, and left out of the tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf


class Unfit(Exception):
    """A tokenizer that only `tokenizers` itself may serve; the message is a clause that says why, "its model is ...", for one."""


@dataclass(frozen=True)
class Merged:
    """parts: of every token that merging reaches, by its bytes, in the order of ids; unreached: those that it never reaches."""

    parts: dict[bytes, tuple[bytes, bytes]]
    unreached: frozenset[bytes]


def prove_merges(ids: Mapping[bytes, int], merges: Sequence[tuple[bytes, bytes]]) -> Merged:
    """Check (1) and (2) for the id of each token and the list of merges, whose tokens all have ids. Raises Unfit when one fails."""
    listed = _by_token(ids, merges)
    ranks: dict[bytes, int] = {}  # of the tokens reached so far, all of smaller ids than the next one
    parts: dict[bytes, tuple[bytes, bytes]] = {}
    unreached = set()
    for token, pairs in listed.items():
        pair = first, second = pairs[0]
        each_alone = (len(first) == 1 or first in parts) and (len(second) == 1 or second in parts)
        if not (each_alone and _stay_apart(first, second, ranks, parts)):
            reached = _merge_alone(token, ranks)
            if len(reached) > 2:
                unreached.add(token)
                continue
            pair = (reached[0], reached[1])
            if pair not in pairs:
                raise Unfit("its merges do not follow from its tokens")
        parts[token] = pair
        ranks[token] = ids[token]
    return Merged(parts, frozenset(unreached))


def _by_token(
    ids: Mapping[bytes, int], merges: Sequence[tuple[bytes, bytes]]
) -> dict[bytes, list[tuple[bytes, bytes]]]:
    """The pairs that are listed for each token, in order. Raises Unfit unless ids rise."""
    listed: dict[bytes, list[tuple[bytes, bytes]]] = {}
    last, latest = b"", -1
    for pair in merges:
        token = b"".join(pair)
        if token != last:
            if ids[token] <= latest:
                raise Unfit("the order of its ids is not that of its merges")
            last, latest = token, ids[token]
            listed[token] = []
        listed[token].append(pair)
    return listed


def _stay_apart(
    first: bytes, second: bytes, ranks: Mapping[bytes, int], parts: Mapping[bytes, tuple[bytes, bytes]]
) -> bool:
    """Whether no merge crosses the border of two tokens side by side, each of which merging reaches: then their bytes become these two.

    At the border meet the last part of the first and the first part of the second, as far as these are merged. Their merging is undone
    here, latest step first. A token across the border takes the place of the next step if its id is smaller; if it is the same, the
    left one of both is merged.
    """
    next_left, next_right = inf, inf
    while True:
        across = ranks.get(first + second)
        if across is not None and across < next_left and across <= next_right:
            return False
        left, right = ranks.get(first, -1), ranks.get(second, -1)
        if left > right:
            next_left, first = left, parts[first][1]
        elif right >= 0:
            next_right, second = right, parts[second][0]
        else:
            return True


def _merge_alone(token: bytes, ranks: Mapping[bytes, int]) -> list[bytes]:
    """The parts of a token after all merges: two or more, as it has no rank itself."""
    parts = [token[i : i + 1] for i in range(len(token))]
    costs = [ranks.get(first + second, inf) for first, second in pairwise(parts)]
    while costs and (smallest := min(costs)) < inf:
        i = costs.index(smallest)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
        del costs[i]
        for j in (i - 1, i):  # the pairs that the new part is in
            if 0 <= j < len(costs):
                costs[j] = ranks.get(parts[j] + parts[j + 1], inf)
    return parts
