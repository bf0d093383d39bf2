"""A classic mistake of distributed training, and the cells of the matrix that must notice it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from tests.distributed.matrix.cell import Cell
from tests.distributed.matrix.table import AXES, all_cells, row_of

Plant = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Mutation:
    """A mistake that is planted on the ranks of a cell, never where references are computed.

    plant: makes the context in which it is there; touches: whether a cell computes something else with it; shows: kinds of deviation
    that must then turn red; among: the cells it may be tried on, for in others it would be an error or change nothing that is
    compared, of these precisions; hides: kinds that cannot be measured while it is there.
    """

    name: str
    plant: Plant
    touches: Callable[[Cell], bool]
    shows: frozenset[str]
    among: Callable[[Cell], bool]
    hides: frozenset[str]
    precisions: tuple[str, ...]

    def victims(self) -> list[Cell]:
        """The cells of the matrix that it touches, those that are run most cheaply first."""
        return sorted(filter(self.touches, self._candidates()), key=_cost)

    def control(self, victim: Cell) -> Cell:
        """The cell it does not touch that has most in common with a victim."""
        others = [cell for cell in self._candidates() if not self.touches(cell)]
        return min(
            others, key=lambda cell: (cell.processes != victim.processes, _differences(cell, victim), _cost(cell))
        )

    def _candidates(self) -> list[Cell]:
        return [
            cell for cell in all_cells() if cell.precision in self.precisions and not cell.title and self.among(cell)
        ]


MUTATIONS: list[Mutation] = []


def mistake(
    name: str,
    *,
    touches: Callable[[Cell], bool],
    shows: str,
    among: Callable[[Cell], bool] = lambda cell: True,
    hides: str = "",
    precisions: tuple[str, ...] = ("fp64",),
) -> Callable[[Plant], Plant]:
    """Enters a function that plants a mistake into MUTATIONS. shows, hides: kinds of deviation, by commas."""

    def enter(plant: Plant) -> Plant:
        red, unmeasured = (frozenset(kinds.split(", ")) for kinds in (shows, hides))
        MUTATIONS.append(Mutation(name, plant, touches, red, among, unmeasured, precisions))
        return plant

    return enter


def replaced(*places: tuple[Any, str], by: Any) -> ExitStack:
    """A context in which each of the places, an object and the name of an attribute, holds something else."""
    stack = ExitStack()
    for owner, name in places:
        stack.enter_context(patch.object(owner, name, by))
    return stack


def _cost(cell: Cell) -> tuple[Any, ...]:
    return cell.processes, cell.zero == 3, cell.accumulation, cell.recompute, cell.blocks


def _differences(one: Cell, other: Cell) -> int:
    first, second = row_of(one), row_of(other)
    return sum(first[name] != second[name] for name in AXES)
