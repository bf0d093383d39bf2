"""Covering arrays: few rows in which every legal combination of values of given axes stands at least once. Small and deterministic.

An axis is a name with its values, a row gives each axis a value, and a rule says which values of some axes do not go together. Rows are
built one after another: a row begins with a combination that is still missing, and every further axis takes the legal value that covers
most of what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

Axes = Mapping[str, Sequence[Any]]
Row = dict[str, Any]
Combination = tuple[tuple[str, Any], ...]
"""Values of some axes, in the order of the axes."""


@dataclass(frozen=True)
class Rule:
    """Which values of the axes `names` go together, and why the others do not."""

    names: tuple[str, ...]
    allows: Callable[..., bool]
    why: str


class Space:
    """The legal rows of `axes` under `rules`. Whether a rule applies is known as soon as all of its axes have a value."""

    def __init__(self, axes: Axes, rules: Sequence[Rule]) -> None:
        ruled = dict.fromkeys(name for rule in rules for name in rule.names)
        self.order = [*ruled, *(name for name in axes if name not in ruled)]
        self.axes = axes
        self._rules = {name: [rule for rule in rules if name in rule.names] for name in axes}

    def allows(self, row: Row, changed: str) -> bool:
        """Whether no rule about `changed` is broken by the values so far."""
        for rule in self._rules[changed]:
            if all(name in row for name in rule.names) and not rule.allows(*(row[name] for name in rule.names)):
                return False
        return True

    def completes(self, row: Row) -> bool:
        """Whether the values so far are part of a legal row."""
        return all(self.allows(row, name) for name in row) and self._search(dict(row))

    def _search(self, row: Row) -> bool:
        name = next((name for name in self.order if name not in row and self._rules[name]), None)
        if name is None:
            return True
        for value in self.axes[name]:
            row[name] = value
            if self.allows(row, name) and self._search(row):
                del row[name]
                return True
            del row[name]
        return False

    def combinations(self, names: Sequence[str]) -> Iterator[Combination]:
        """Every combination of values of these axes that some legal row has."""
        ordered = [name for name in self.order if name in names]
        for values in product(*(self.axes[name] for name in ordered)):
            combination = tuple(zip(ordered, values, strict=True))
            if self.completes(dict(combination)):
                yield combination


def cover(space: Space, groups: Sequence[Sequence[str]]) -> list[Row]:
    """Rows in which every legal combination of the axes of each group stands."""
    ordered = [tuple(name for name in space.order if name in group) for group in groups]
    missing = dict.fromkeys(combination for group in groups for combination in space.combinations(group))
    rows = []
    while missing:
        row = dict(next(iter(missing)))
        for name in space.order:
            if name not in row:
                row[name] = _most_useful(space, row, name, ordered, missing)
        for combination in combinations_of(row, ordered):
            missing.pop(combination, None)
        rows.append(row)
    return rows


def combinations_of(row: Row, groups: Sequence[Sequence[str]]) -> Iterator[Combination]:
    """The combination of each group that stands in the row (axes of a group in the order of the space)."""
    for group in groups:
        yield tuple((name, row[name]) for name in group)


def _most_useful(
    space: Space, row: Row, name: str, groups: Sequence[Sequence[str]], missing: Mapping[Combination, None]
) -> Any:
    """The legal value of an axis that covers most; of equals the first, counted from another value in every row."""
    values = space.axes[name]
    start = len(missing) % len(values)
    best, most = None, -1
    for value in (*values[start:], *values[:start]):
        longer = {**row, name: value}
        if not space.allows(longer, name) or not space.completes(longer):
            continue
        known = [group for group in groups if name in group and all(other in longer for other in group)]
        useful = sum(combination in missing for combination in combinations_of(longer, known))
        if useful > most:
            best, most = value, useful
    assert most >= 0, f"no value of {name} goes with {row}"
    return best
