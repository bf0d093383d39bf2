"""The parameters of a checkpoint as a tree of layers and modules, with what is known of the values of each and of its optimizer state."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from megatron.checkpointing.inspecting.contents import SavedTensor
from megatron.checkpointing.inspecting.names import in_order
from megatron.checkpointing.inspecting.remarks import remarks
from megatron.checkpointing.names import WEIGHT, kind_of, parameter_of

if TYPE_CHECKING:
    from megatron.checkpointing.inspecting.statistics import Statistics

    Measured = Mapping[str, Statistics]
    """By the name of the tensor; empty when no values were read."""


@dataclass(frozen=True)
class Node:
    """A parameter, or several in a module or layer. norms: joint ones by kind ("weight", "exp_avg", ...), of kinds that were measured.

    tensor: a parameter's own values (of one whose weight is missing: its first state); None of a module.
    """

    label: str
    elements: int
    norms: Mapping[str, float]
    tensor: SavedTensor | None = None
    remarks: tuple[str, ...] = ()
    children: tuple[Node, ...] = ()


def tree(tensors: Mapping[str, SavedTensor], measured: Measured) -> Node:
    """The whole of a checkpoint; its children are layers, and parameters that are a layer alone."""
    kinds: dict[str, list[str]] = {}
    for name in tensors:
        kinds.setdefault(parameter_of(name), []).append(name)
    leaves = [_leaf(parameter, kinds[parameter], tensors, measured) for parameter in in_order(kinds)]
    return _joint("", list(_grouped(leaves, depth=0)))


def kinds_of_state(tensors: Mapping[str, SavedTensor]) -> list[str]:
    """The kinds of optimizer state that there are."""
    return sorted({kind_of(name) for name in tensors} - {WEIGHT})


def _leaf(parameter: str, names: Sequence[str], tensors: Mapping[str, SavedTensor], measured: Measured) -> Node:
    own = f"{parameter}/{WEIGHT}"
    tensor = tensors[own if own in tensors else names[0]]
    statistics = {kind_of(name): measured[name] for name in names if name in measured}
    norms = {kind: found.norm for kind, found in statistics.items()}
    said = tuple(remarks(statistics)) if own in tensors else ("its weight is missing", *remarks(statistics))
    return Node(parameter, tensor.elements if own in tensors else 0, norms, tensor, said)


def _grouped(leaves: Sequence[Node], *, depth: int) -> Iterator[Node]:
    """Parameters whose names begin alike, together; labels lose what their parent says. Two levels: layers and modules."""
    for part, group in groupby(leaves, key=lambda leaf: leaf.label.partition(".")[0]):
        members = list(group)
        inner = [_renamed(member, member.label.partition(".")[2]) for member in members]
        if len(members) == 1:
            yield members[0]
        elif depth == 1:
            yield _joint(part, inner)
        else:
            yield _joint(part, list(_grouped(inner, depth=depth + 1)))


def _renamed(leaf: Node, label: str) -> Node:
    return Node(label, leaf.elements, leaf.norms, leaf.tensor, leaf.remarks)


def _joint(label: str, children: Sequence[Node]) -> Node:
    kinds = dict.fromkeys(kind for child in children for kind in child.norms)
    norms = {kind: math.hypot(*(child.norms.get(kind, 0.0) for child in children)) for kind in kinds}
    return Node(label, sum(child.elements for child in children), norms, children=tuple(children))
