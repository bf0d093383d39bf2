"""What is remarkable of values: not finite, many zeros, one value far beyond the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from megatron.checkpointing.names import WEIGHT
from megatron.text import percent

if TYPE_CHECKING:
    from megatron.checkpointing.inspecting.statistics import Statistics

MANY_ZEROS = 0.01
"""Share of zeros in a weight from which on they are told. State is full of them where nothing has been learnt yet: only of zeros alone."""
FAR_BEYOND = 20.0
"""Times the root mean square from which on the largest value of a weight is told: of a billion normal ones it is 6 times as large."""


def remarks(statistics: Mapping[str, Statistics]) -> Iterator[str]:
    """Phrases about a parameter's values by kind ("weight", "exp_avg", ...)."""
    for kind, found in statistics.items():
        about = "" if kind == WEIGHT else f"{kind} "
        if found.not_finite:
            yield f"{about}{found.not_finite:,} of {found.elements:,} NaN or infinite"
        if found.zeros and found.zeros == found.elements:
            yield f"{about}all zeros"
        elif kind == WEIGHT and found.zeros >= MANY_ZEROS * found.elements:
            yield f"{percent(found.zeros / found.elements)} zeros"
        if kind == WEIGHT and found.magnitude > FAR_BEYOND * found.root_mean_square:
            yield f"max |x| {found.magnitude:.4g}, {found.magnitude / found.root_mean_square:.0f} times the root mean square"
