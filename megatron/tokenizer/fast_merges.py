"""Whether two ways to apply the merges of a byte-pair encoding give the same ids for every text.

`tokenizers` merges the pairs that are listed, the first of the list first. Faster engines know tokens only: they merge two neighbours
whenever their bytes together are a token, the smallest id first. Both are the same when

1. the ids of the merged tokens never fall along the list of merges, and
2. a token that is merged alone, with the tokens of smaller ids, ends as two parts that are a listed pair of it.

For when an engine merges two neighbours into a token, no merge has crossed the borders of its bytes, and all merges of smaller ids are
done: inside the borders stand the two parts of (2), which `tokenizers` merges at the same moment because of (1), and at the same place
because both take the leftmost of equals. A token that ends in more than two parts is merged by neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise


class Unfit(Exception):
    """A tokenizer that only `tokenizers` itself may serve; the message is a clause that says why, "its model is ...", for one."""


@dataclass(frozen=True)
class Merged:
    """parts: of every token that merging reaches, by its bytes, in the order of ids; unreached: those that it never reaches."""

    parts: dict[bytes, tuple[bytes, bytes]]
    unreached: frozenset[bytes]


def prove_merges(ids: Mapping[bytes, int], merges: Sequence[tuple[bytes, bytes]]) -> Merged:
    """Check (1) and (2) for the id of each token and the list of merges, whose tokens all have ids. Raises Unfit when one fails."""
    listed: dict[bytes, set[tuple[bytes, bytes]]] = {}
    last = -1
    for pair in merges:
        merged = b"".join(pair)
        if ids[merged] < last:
            raise Unfit("the order of its ids is not that of its merges")
        last = ids[merged]
        listed.setdefault(merged, set()).add(pair)
    ranks = {token: ids[token] for token in listed}
    parts: dict[bytes, tuple[bytes, bytes]] = {}
    unreached = set()
    for token, pairs in listed.items():
        reached = _merge_alone(token, ranks)
        if len(reached) > 2:
            unreached.add(token)
        elif (reached[0], reached[1]) not in pairs:
            raise Unfit("its merges do not follow from its tokens")
        else:
            parts[token] = (reached[0], reached[1])
    return Merged(parts, frozenset(unreached))


def _merge_alone(token: bytes, ranks: Mapping[bytes, int]) -> list[bytes]:
    """The parts of a token after all merges of smaller ids: two or more."""
    own = ranks[token]
    parts = [token[i : i + 1] for i in range(len(token))]
    costs = [ranks.get(first + second, own) for first, second in pairwise(parts)]
    while len(parts) > 2 and (smallest := min(costs)) < own:
        i = costs.index(smallest)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
        del costs[i]
        for j in (i - 1, i):  # the pairs that the new part is in
            if 0 <= j < len(costs):
                costs[j] = ranks.get(parts[j] + parts[j + 1], own)
    return parts
