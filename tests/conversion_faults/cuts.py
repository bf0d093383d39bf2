"""Wrong packings, as the cuts of `mapping.packing` are written: each places every row once, but for `one_too_few`."""

from __future__ import annotations

import torch
from torch import Tensor

from megatron.conversion.mapping.packing import Heads, gate_and_up, separate_heads

Rows = tuple[Tensor, ...]


def values_before_keys(rows: Tensor, heads: Heads) -> Rows:
    return (rows.view(heads.query, 3, heads.width)[:, [0, 2, 1]].flatten(),)


def separate_values_before_keys(rows: Tensor, heads: Heads) -> Rows:
    query, key, value = separate_heads(rows, heads)
    return query, value, key


def queries_across_groups(rows: Tensor, heads: Heads) -> Rows:
    query, key, value = separate_heads(rows, heads)
    return query.view(heads.key_value, -1, heads.width).transpose(0, 1).flatten(), key, value


def groups_exchanged(rows: Tensor, heads: Heads) -> Rows:
    query, key, value = separate_heads(rows, heads)
    by_group = [query.view(heads.key_value, -1), *(part.view(heads.key_value, -1).flip(0) for part in (key, value))]
    return (torch.cat(by_group, 1).flatten(),)


def up_and_gate(rows: Tensor, heads: Heads) -> Rows:
    gate, up = gate_and_up(rows, heads)
    return up, gate


def shifted(rows: Tensor, heads: Heads) -> Rows:
    return (rows.roll(1),)


def one_too_few(rows: Tensor, heads: Heads) -> Rows:
    return (rows[:-1],)
