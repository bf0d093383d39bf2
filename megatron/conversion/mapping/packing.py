"""How one parameter of ours is cut into tensors of another program: rows in another order, in several tensors, perhaps transposed.

Nothing is computed, so the way there and back is exact to the bit. A packing is written as what happens to the numbers of our rows; the
bias of a projection, which has one value a row, is packed like its weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Packing:
    """parts: for each of their tensors, which rows of ours it consists of, in order; transposed: whether they hold matrices as
    [inputs, outputs] where ours are [outputs, inputs]."""

    parts: tuple[Tensor, ...]
    transposed: bool = False

    def unpack(self, ours: Tensor) -> tuple[Tensor, ...]:
        """Our full tensor as theirs; views where rows stay together."""
        return tuple(self._turned(_take(ours, rows)) for rows in self.parts)

    def pack(self, theirs: Sequence[Tensor]) -> Tensor:
        """Their tensors as ours. Raises ValueError when the number of their rows is another."""
        turned = [self._turned(tensor) for tensor in theirs]
        wanted = [len(rows) for rows in self.parts]
        if [tensor.shape[0] for tensor in turned] != wanted:
            raise ValueError(f"{[tensor.shape[0] for tensor in turned]} rows where {wanted} belong")
        rows = torch.cat(self.parts)
        joined = turned[0] if len(turned) == 1 else torch.cat(turned)
        return joined if _is_range(rows) else joined[torch.argsort(rows)]

    def shapes(self, ours: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """The shapes of their tensors for one of ours of this shape."""
        shapes = (((len(rows), *ours[1:])) for rows in self.parts)
        return tuple(shape[::-1] if self.transposed else shape for shape in shapes)

    def _turned(self, tensor: Tensor) -> Tensor:
        return tensor.t() if self.transposed and tensor.dim() == 2 else tensor


@dataclass(frozen=True)
class Heads:
    """The heads of an attention: query heads, key/value heads, channels of one, and how many of these are rotated by positions."""

    query: int
    key_value: int
    width: int
    rotated: int = 0


Cut = Callable[[Tensor, Heads], tuple[Tensor, ...]]
"""From the numbers of our rows (or any tensor that has one entry a row) to those of each of their tensors."""


def whole(rows: Tensor, heads: Heads) -> tuple[Tensor, ...]:
    """The same tensor."""
    return (rows,)


def separate_heads(rows: Tensor, heads: Heads) -> tuple[Tensor, ...]:
    """Queries, keys and values, each head after head, in three tensors."""
    if heads.query == heads.key_value:  # ours: [q_0; k_0; v_0; q_1; ...]
        query, key, value = rows.view(heads.query, 3, heads.width).unbind(1)
        return query.flatten(), key.flatten(), value.flatten()
    query_rows, key_value_rows = heads.query * heads.width, heads.key_value * heads.width
    query, key, value = rows.split((query_rows, key_value_rows, key_value_rows))
    return query, key, value


def fused_heads(rows: Tensor, heads: Heads) -> tuple[Tensor, ...]:
    """`[Q; K; V]` in one tensor."""
    return (torch.cat(separate_heads(rows, heads)),)


def heads_by_group(rows: Tensor, heads: Heads) -> tuple[Tensor, ...]:
    """One tensor in which each key/value head follows the query heads that use it: `[q_0; q_1; k_0; v_0; q_2; ...]`."""
    query, key, value = separate_heads(rows, heads)
    groups = (part.view(heads.key_value, -1) for part in (query, key, value))
    return (torch.cat(list(groups), dim=1).flatten(),)


def separate_interleaved_heads(rows: Tensor, heads: Heads) -> tuple[Tensor, ...]:
    """As `separate_heads`, for programs that rotate neighbouring channels of queries and keys (see interleave_pairs)."""
    query, key, value = separate_heads(rows, heads)
    turned = (
        interleave_pairs(part, number, rotated=heads.rotated)
        for part, number in ((query, heads.query), (key, heads.key_value))
    )
    return *turned, value


def gate_and_up(rows: Tensor, heads: Heads) -> tuple[Tensor, ...]:
    """The gate and the up projection in two tensors; ours is `[up; gate]`."""
    up, gate = rows.chunk(2)
    return gate, up


def fused_gate_and_up(rows: Tensor, heads: Heads) -> tuple[Tensor, ...]:
    """`[gate; up]` in one tensor."""
    return (torch.cat(gate_and_up(rows, heads)),)


@lru_cache(maxsize=32)  # blocks are alike
def build_packing(cut: Cut, rows: int, heads: Heads, *, transposed: bool = False) -> Packing:
    """The packing of a parameter with this many rows. Each row must end up somewhere, once."""
    parts = cut(torch.arange(rows), heads)
    placed = torch.cat(parts)
    times = torch.bincount(placed, minlength=rows)
    assert len(placed) == rows and bool((times == 1).all()), f"{cut.__name__} does not place every row once"  # noqa: PT018
    return Packing(parts, transposed)


def interleave_pairs(rows: Tensor, heads: int, *, rotated: int) -> Tensor:
    """Rows of query or key heads for programs that rotate neighbouring channels (0 with 1, 2 with 3), as Meta's Llama and GPT-J do.

    Ours rotate channel i with channel i + rotated / 2. rotated: channels of a head that are; the others stay.
    """
    by_head = rows.view(heads, -1)
    turning, resting = by_head[:, :rotated], by_head[:, rotated:]
    pairs = turning.unflatten(1, (2, rotated // 2)).transpose(1, 2).flatten(1)
    return torch.cat([pairs, resting], dim=1).flatten()


def _take(tensor: Tensor, rows: Tensor) -> Tensor:
    first = int(rows[0]) if len(rows) else 0
    return tensor.narrow(0, first, len(rows)) if _is_range(rows - first) else tensor[rows]


def _is_range(rows: Tensor) -> bool:
    return torch.equal(rows, torch.arange(len(rows)))
