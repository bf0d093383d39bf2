"""The plot shows the learning rates that training uses."""

from __future__ import annotations

import pytest

from megatron.optim.lr_schedules import learning_rate
from megatron.planning.page.lr_plot import lr_plot, plot
from tests.unit.planning.builders import arguments

MARGIN = 12


def drawn(lines: list[str], height: int) -> dict[int, int]:
    """Column -> row (0 at the bottom) of every star."""
    return {
        column: height - 1 - row
        for row, line in enumerate(lines[:height])
        for column, character in enumerate(line[MARGIN:])
        if character == "*"
    }


@pytest.mark.parametrize("style", ["constant", "linear", "cosine", "exponential"])
def test_every_column_stands_at_the_rate_of_its_iteration(style: str) -> None:
    args = arguments(lr_decay_style=style, warmup=0.1, min_lr=1e-4, optimizer={"type": "Adam", "params": {"lr": 1e-3}})
    width, height = 41, 11
    stars = drawn(lr_plot(args, width=width, height=height), height)
    assert sorted(stars) == list(range(width)), "one star a column"
    for column, row in stars.items():
        rate = learning_rate(args, column * 25)
        assert row / (height - 1) * 1e-3 == pytest.approx(rate, abs=1e-3 / (height - 1) / 2 * 1.001)


def test_marks_stand_below_the_corners() -> None:
    lines = plot(lambda _: 1.0, last=100, marks={"W": 25, "D": 75}, width=41, height=3)
    axis = lines[3][MARGIN:]
    assert axis.index("W") == 10
    assert axis.index("D") == 30
    assert lines[4].split() == ["0", "100"]
    assert lines[4].rindex("100") + 2 == MARGIN + 40, "the last iteration stands below the last column"


def test_a_mark_beyond_the_run_is_left_out() -> None:
    assert "D" not in plot(lambda _: 1.0, last=100, marks={"D": 200})[-2]


def test_a_rate_of_zero_can_be_drawn() -> None:
    assert len(drawn(plot(lambda _: 0.0, last=1, marks={}, width=5, height=3), 3)) == 5
