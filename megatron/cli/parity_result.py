"""What a comparison of two runs found: their scalars and the deviations of their tensors step by step, and whether they are equal. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

TOLERANCE = 1e-5
"""The largest relative deviation of two runs that are the same but for the order in which fp32 sums were taken."""

SCALARS = {"loss": "loss", "grad_norm": "gradient norm", "validation/loss": "validation loss", "test/loss": "test loss"}
"""What metrics call the scalars that are compared."""

TENSORS = {"weight": "weights", "exp_avg": "first moments", "exp_avg_sq": "second moments"}
"""What kinds of tensors are called; others keep their name."""


@dataclass(frozen=True)
class Pair:
    """A scalar of both runs; NaN where a run has none."""

    layout: float
    one_process: float

    @property
    def deviation(self) -> float:
        """Relative to the one process; infinite where one of them is not finite."""
        if not math.isfinite(self.layout) or not math.isfinite(self.one_process):
            return math.inf
        difference = abs(self.layout - self.one_process)
        return difference / abs(self.one_process) if difference and self.one_process else difference


@dataclass(frozen=True)
class Deviation:
    """The largest of its kind: how large, in which step, and for tensors which."""

    kind: str
    value: float
    step: int
    tensor: str = ""


@dataclass(frozen=True)
class Step:
    """A step of both runs: scalars by what metrics call them, the relative deviation of every tensor after it by name."""

    iteration: int
    scalars: Mapping[str, Pair]
    tensors: Mapping[str, float]

    def deviations(self) -> list[Deviation]:
        """The largest of each kind."""
        largest = {
            title: Deviation(title, self.scalars[key].deviation, self.iteration)
            for key, title in SCALARS.items()
            if key in self.scalars
        }
        for name, value in self.tensors.items():
            kind = TENSORS.get(name.rpartition("/")[2], name.rpartition("/")[2])
            if kind not in largest or value > largest[kind].value:
                largest[kind] = Deviation(kind, value, self.iteration, name)
        return list(largest.values())

    def worst_tensor(self) -> tuple[str, float]:
        """The tensor that deviates most, and by how much."""
        return max(self.tensors.items(), key=lambda item: item[1], default=("", math.inf))

    def differs(self) -> bool:
        """Whether anything deviates by more than the tolerance."""
        return any(found.value > TOLERANCE for found in self.deviations())


def first_difference(steps: Iterable[Step]) -> Step | None:
    """The first step in which the runs differ."""
    return next((step for step in steps if step.differs()), None)


def largest_deviations(steps: Iterable[Step]) -> list[Deviation]:
    """The largest of each kind over all steps."""
    largest: dict[str, Deviation] = {}
    for found in (found for step in steps for found in step.deviations()):
        if found.kind not in largest or found.value > largest[found.kind].value:
            largest[found.kind] = found
    return list(largest.values())


def steps_of(
    layout: Iterable[Mapping[str, Any]],
    one_process: Iterable[Mapping[str, Any]],
    tensors: Mapping[int, Mapping[str, float]],
    *,
    iterations: int,
) -> list[Step]:
    """The steps of two runs by their records in metrics.jsonl and the deviations of their tensors by iteration.

    A step that a run has not made, or not saved, deviates infinitely.
    """
    ours, theirs = _by_iteration(layout), _by_iteration(one_process)
    steps = []
    for iteration in range(1, iterations + 1):
        mine, known = ours.get(iteration, {}), theirs.get(iteration, {})
        keys = [key for key in SCALARS if key in mine or key in known or key in ("loss", "grad_norm")]
        pairs = {key: Pair(mine.get(key, math.nan), known.get(key, math.nan)) for key in keys}
        steps.append(Step(iteration, pairs, tensors.get(iteration) or {"no checkpoint of both runs": math.inf}))
    return steps


def _by_iteration(records: Iterable[Mapping[str, Any]]) -> dict[int, dict[str, float]]:
    """The scalars of each iteration, which has several records when it was evaluated."""
    found: dict[int, dict[str, float]] = {}
    for record in records:
        values = {key: float(record[key]) for key in SCALARS if record.get(key) is not None}
        found.setdefault(record["iteration"], {}).update(values)
    return found
