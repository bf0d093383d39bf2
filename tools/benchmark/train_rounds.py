"""Rounds of tools/benchmark/train.py: all ways of a case are built, warmed up, and take turns."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.benchmark.train_cases import Case
from tools.benchmark.train_job import PRODUCTS, Job
from tools.benchmark.train_turns import Child, WayFailed, on_each, rotated
from tools.benchmark.train_ways import OURS, Way, environment_of

PRODUCTS_WAY = Way(PRODUCTS)
"""Not a way to train: measures products of matrices."""

LR = 3e-3  # so large that losses fall by much more than they may differ
LAST_TURN = 120.0  # seconds that a turn may take, though time is up


@dataclass(frozen=True)
class Plan:
    """rounds, steps of each turn, steps before the first one; together: how many processes have room at once; until: when to be done (`monotonic`)."""

    device: str
    rounds: int
    steps: int
    warm_up: int
    together: int
    until: float

    @property
    def left(self) -> float:
        """Seconds."""
        return self.until - time.monotonic()


@dataclass
class Measured:
    """What came of a case: answers of the rounds by way (one of `products` a round), losses of all steps, and who is left out why."""

    rounds: list[dict[str, Any]] = field(default_factory=list)
    losses: dict[str, list[float]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    build_seconds: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def measure_case(case: Case, ways: Mapping[str, Way], plan: Plan, *, model: Path, logs: Path) -> Measured:
    """All ways interleaved; in several goes, with ours and the products in each, where they do not have room at once.

    model: its directory; logs: for what they write.
    """
    measured = Measured()
    children: dict[str, Child] = {}
    always = [name for name in (PRODUCTS, OURS) if name in ways]
    others = [name for name in ways if name not in always]
    size = max(1, plan.together - 1)
    goes = [others[first : first + size] for first in range(0, len(others), size)] or [[]]
    try:
        _start({name: ways[name] for name in always}, case, plan, children, measured, model=model, logs=logs)
        for names in goes:
            if OURS not in children:
                measured.left_out |= dict.fromkeys(names, "nothing to compare with")
                continue
            if plan.left <= 0:
                measured.left_out |= dict.fromkeys(names, "no time left")
                continue
            _start({name: ways[name] for name in names}, case, plan, children, measured, model=model, logs=logs)
            _run_rounds(children, plan, measured)
            say(f"{case.name}: {len(measured.rounds)} rounds done")
            for name in names:
                if name in children:
                    children.pop(name).close()
    finally:
        for child in children.values():
            child.close()
    return measured


def say(text: str) -> None:
    """Tell whoever waits how far it is; not part of what is printed."""
    print(text, file=sys.stderr, flush=True)


def _start(
    ways: Mapping[str, Way],
    case: Case,
    plan: Plan,
    children: dict[str, Child],
    measured: Measured,
    *,
    model: Path,
    logs: Path,
) -> None:
    """Start processes, at once; have them warmed up, at once on a GPU, where compiling takes the time; note who fails."""
    new: dict[str, Child] = {}
    for name, way in ways.items():
        job = Job(way.program, way.settings_on(plan.device), case, str(model), plan.device, LR)
        log = logs / f"{case.name} {name}.log".replace(" ", "_")
        new[name] = Child(job.to_json(), environment=environment_of(way, device=plan.device), log=log)
    children |= new
    built, failed = on_each(new, lambda child: child.answer(seconds=plan.left), together=True)
    for name, answer in built.items():
        measured.notes[name] = answer["notes"]
        measured.build_seconds[name] = answer["seconds"]
    ready = {name: child for name, child in new.items() if name in built}
    warm, failed_later = on_each(
        ready, lambda child: child.steps(plan.warm_up, seconds=plan.left), together=plan.device == "cuda"
    )
    for name, answer in warm.items():
        measured.losses[name] = answer.get("losses", [])
    measured.left_out |= failed | failed_later
    say(f"{case.name}: {', '.join(warm)} warm" + "".join(f"; {name} left out" for name in failed | failed_later))
    for name in failed | failed_later:
        children.pop(name).close()


def _run_rounds(children: dict[str, Child], plan: Plan, measured: Measured) -> None:
    """Rounds of all that are there, while there is time for one."""
    longest = 0.0
    for turn in range(plan.rounds):
        if turn and plan.left < longest:
            break
        began, taken = time.monotonic(), {}
        for name in rotated(list(children), turn):
            try:
                answer = children[name].steps(plan.steps, seconds=max(plan.left, LAST_TURN))
            except WayFailed as failure:
                measured.left_out[name] = str(failure)
                children.pop(name).close()
                continue
            measured.losses[name] = [*measured.losses.get(name, []), *answer.pop("losses", [])]
            taken[name] = answer
        measured.rounds.append(taken)
        longest = max(longest, time.monotonic() - began)
