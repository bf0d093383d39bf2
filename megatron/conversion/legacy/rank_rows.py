"""A tensor-parallel rank's tensors in files of GPT-NeoX -> its part of one parameter of ours, in the order of rows that ours have.

Each function takes the tensors by which a rank holds one parameter; a bias has one value a row and is treated alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from megatron.conversion.mapping.packing import Heads, build_packing, heads_by_group, separate_heads

Join = Callable[[Sequence[Tensor]], Tensor]

GroupedRows = Literal["blocks", "query_heads", "groups"]
"""How rows of queries, keys and values lie where several query heads share a key head: [Q | K | V], as ours; each query head followed by its
fraction of the rows of K and of V, as in GPT-NeoX before November 2024 (https://github.com/EleutherAI/gpt-neox/pull/1315); each group of
query heads followed by its key and its value, as in Transformer Engine."""


def only(tensors: Sequence[Tensor]) -> Tensor:
    """The one tensor there is, as it is."""
    (tensor,) = tensors
    return tensor


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors one below the other: up [w, h] and gate [w, h] -> [2 w, h]."""
    return torch.cat(tuple(tensors))


def halves_exchanged(tensors: Sequence[Tensor]) -> Tensor:
    """[gate; up] -> [up; gate]: Transformer Engine activates the first half."""
    gate, up = only(tensors).chunk(2)
    return torch.cat((up, gate))


def grouped_rows(order: GroupedRows, heads: Heads) -> Join:
    """Queries, keys and values that lie in this order -> [Q | K | V]. heads: those of one rank."""
    cuts = {"query_heads": _by_query_head, "groups": heads_by_group}
    return only if order == "blocks" else partial(_ordered, cuts[order], heads)


def _ordered(cut: Callable[[Tensor, Heads], tuple[Tensor, ...]], heads: Heads, tensors: Sequence[Tensor]) -> Tensor:
    return build_packing(cut, only(tensors).shape[0], heads).pack(tensors)


def _by_query_head(rows: Tensor, heads: Heads) -> tuple[Tensor, ...]:
    """`[q_0; part of K; part of V; q_1; ...]`, K and V being cut into as many parts as there are query heads."""
    return (torch.cat([part.view(heads.query, -1) for part in separate_heads(rows, heads)], dim=1).flatten(),)
