"""The claim of the table: every legal pair of values stands in it. Counted here by trying everything."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations, product
from typing import Any

from tests.distributed.matrix.covering import Axes, Row, Rule, Space, cover
from tests.distributed.matrix.table import (
    AXES,
    PAIRS,
    RULES,
    TRIPLES,
    all_cells,
    covering_cells,
    quick_cells,
    row_of,
)

SMALL = {"a": (1, 2, 3), "b": (1, 2), "c": (1, 2), "d": (1, 2, 3)}
SMALL_RULES = (
    Rule(("a", "b"), lambda a, b: a >= b, ""),
    Rule(("b", "c"), lambda b, c: b == c, ""),
    Rule(("a", "c", "d"), lambda a, c, d: a + c + d != 5, ""),
)


def legal_rows(axes: Axes, rules: Sequence[Rule]) -> list[Row]:
    """All rows that no rule forbids, found by writing down every row."""
    rows = (dict(zip(axes, values, strict=True)) for values in product(*axes.values()))
    return [row for row in rows if all(rule.allows(*(row[name] for name in rule.names)) for rule in rules)]


def values_in(rows: Iterable[Row], names: Iterable[str]) -> set[tuple[Any, ...]]:
    """The combinations of values of these axes that stand in the rows."""
    return {tuple(row[name] for name in names) for row in rows}


def test_a_small_space_is_covered_and_nothing_illegal_is_made() -> None:
    pairs = tuple(combinations(SMALL, 2))
    rows, legal = cover(Space(SMALL, SMALL_RULES), pairs), legal_rows(SMALL, SMALL_RULES)
    for names in pairs:
        assert values_in(rows, names) == values_in(legal, names)
    assert all(row in legal for row in rows)
    assert len(rows) < len(legal)


def test_every_legal_pair_of_values_stands_in_the_matrix() -> None:
    """Axes without a rule go with everything, so that only the rows of the others have to be written down."""
    ruled = {name: values for name, values in AXES.items() if any(name in rule.names for rule in RULES)}
    legal = legal_rows(ruled, RULES)
    rows = [row_of(cell) for cell in covering_cells()]
    count = 0
    for names in (*PAIRS, *TRIPLES):
        bound, free = ([name for name in names if (name in ruled) is flag] for flag in (True, False))
        expected = {
            tuple(
                {**dict(zip(bound, some, strict=True)), **dict(zip(free, others, strict=True))}[name] for name in names
            )
            for some in values_in(legal, bound)
            for others in product(*(AXES[name] for name in free))
        }
        assert values_in(rows, names) == expected, names
        count += len(expected)
    assert count > 2000


def test_cells_are_told_apart_by_their_names() -> None:
    assert len({cell.name for cell in all_cells()}) == len(all_cells())
    assert len(all_cells()) >= 150
    assert set(quick_cells()) <= set(all_cells())


def test_every_cell_is_a_configuration_that_is_accepted() -> None:
    for cell in all_cells():
        args = cell.arguments()
        assert args.global_num_gpus == cell.processes, cell.name
