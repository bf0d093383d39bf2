"""Carrying trainings over from layout to layout, in worlds of forked ranks, and the verdict on each pair."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from megatron.checkpointing.compare import deviations
from megatron.checkpointing.digest import logical_sha256
from megatron.checkpointing.inspecting.tensors import TensorReader
from megatron.checkpointing.layout import checkpoint_name
from megatron.checkpointing.names import kind_of
from megatron.checkpointing.state_file import read_state
from megatron.data.indexed_dataset import IndexedDatasetWriter
from tests import deepspeed_world  # noqa: F401  prepares torch and DeepSpeed for forked ranks
from tests.distributed.matrix.running import TOLERANCES
from tests.distributed.resharding.cases import HALF, VOCABULARY, WHOLE, Layout, Pair, Training
from tests.distributed.resharding.ranks import Start, start_on_rank
from tests.worlds import run_world

SCALARS = ("losses", "norms")
COUNTERS = ("iteration", "lr", "loss_scale", "skipped", "consumed_samples", "consumed_tokens")
OF_KEY = {"weight": "weights", "exp_avg": "first moments", "exp_avg_sq": "second moments"}
KINDS = {*SCALARS, "counters", *OF_KEY.values(), "hash", "padding"}
OF_VOCABULARY = ("word_embeddings", "final_linear")

Plant = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Verdict:
    """The largest relative deviations by kind of a run that was carried over from one that was not.

    Infinite is also: "counters" that are not equal, a logical "hash" that is not that of the first checkpoint in any later one,
    "padding" of the vocabulary in a checkpoint.
    """

    precision: str
    deviations: dict[str, float]

    @property
    def red(self) -> set[str]:
        """The kinds that deviate by more than is allowed."""
        scalars, tensors = TOLERANCES[self.precision]
        return {kind for kind, value in self.deviations.items() if value > (scalars if kind in SCALARS else tensors)}


@dataclass(frozen=True)
class Task:
    """A pair to be tried, with a mistake in what the second layout does, or none; then the way back is tried as well."""

    pair: Pair
    mistake: str = ""
    plant: Plant | None = field(default=None, compare=False)


def write_data(prefix: Path) -> None:
    """Documents of random bytes, more than the trainings read."""
    generator = np.random.default_rng(0)
    with IndexedDatasetWriter(prefix, dtype=np.uint16) as writer:
        for _ in range(200):
            writer.add_document(generator.integers(0, 256, size=20))


def run_tasks(tasks: Sequence[Task], folder: Path, *, timeout: float) -> list[Verdict]:
    """The verdict on each task. timeout: seconds for a world."""
    data = folder / "data"
    write_data(data)
    pairs = [task.pair for task in tasks]
    firsts = {(pair.training, pair.first): folder / f"first{n}" for n, pair in enumerate(pairs)}
    _run_worlds((Start(*key, data, path) for key, path in firsts.items()), timeout)
    seconds, thirds = ([folder / f"{name}{n}" for n in range(len(tasks))] for name in ("second", "third"))
    _run_worlds((_second_start(task, data, seconds[n], firsts) for n, task in enumerate(tasks)), timeout)
    _run_worlds(
        (
            Start(task.pair.training, task.pair.first, data, thirds[n], source=seconds[n], trains=False)
            for n, task in enumerate(tasks)
            if task.plant is None
        ),
        timeout,
    )
    return [
        _judge(task.pair, firsts[task.pair.training, task.pair.first], seconds[n], thirds[n])
        for n, task in enumerate(tasks)
    ]


def _second_start(task: Task, data: Path, directory: Path, firsts: dict[tuple[Training, Layout], Path]) -> Start:
    pair = task.pair
    start = Start(pair.training, pair.second, data, directory, source=firsts[pair.training, pair.first])
    return start if task.plant is None else Start(**{**vars(start), "plant": task.plant})


def _run_worlds(starts: Iterable[Start], timeout: float) -> None:
    """Make all starts: one world a size."""
    starts = list(starts)
    for size in sorted({start.layout.grid.processes for start in starts}):
        mine = [start for start in starts if start.layout.grid.processes == size]
        run_world(size, start_on_rank, mine, timeout_seconds=timeout)


def _judge(pair: Pair, first: Path, second: Path, third: Path) -> Verdict:
    whole, carried = _records(first)[HALF:], _records(second)
    found: dict[str, float] = {
        "losses": _worst(whole, carried, "loss"),
        "norms": _worst(whole, carried, "grad_norm"),
        "counters": _unless([_counters(one) for one in whole] == [_counters(one) for one in carried]),
    }
    ours, known = (TensorReader(directory / checkpoint_name(WHOLE)) for directory in (second, first))
    for name, value in deviations(ours, known).items():
        kind = OF_KEY[kind_of(name)]
        found[kind] = max(found.get(kind, 0.0), value)
    middles = [each / checkpoint_name(HALF) for each in (first, second, third) if each.exists()]
    found["hash"] = _unless(len({_sha(middle) for middle in middles}) == 1)
    found["padding"] = _unless(all(map(_is_without_padding, [*middles, second / checkpoint_name(WHOLE)])))
    return Verdict(pair.training.precision, found)


@cache
def _records(directory: Path) -> list[dict[str, Any]]:
    """The metrics of each step."""
    lines = map(json.loads, (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [line for line in lines if "loss" in line]


@cache
def _sha(checkpoint: Path) -> str:
    return logical_sha256(checkpoint)


def _worst(whole: list[dict[str, Any]], carried: list[dict[str, Any]], key: str) -> float:
    if len(whole) != WHOLE - HALF or len(carried) != len(whole):
        return math.inf
    worst = max(abs(ours[key] / known[key] - 1) for ours, known in zip(carried, whole, strict=True))
    return worst if math.isfinite(worst) else math.inf


def _counters(record: dict[str, Any]) -> list[Any]:
    return [record[key] for key in COUNTERS]


def _unless(is_right: bool) -> float:
    return 0.0 if is_right else math.inf


def _is_without_padding(checkpoint: Path) -> bool:
    """Whether tables of the vocabulary, their moments included, have its rows and no more."""
    shapes = read_state(checkpoint).shapes
    rows = [shape[0] for name, shape in shapes.items() if any(table in name for table in OF_VOCABULARY)]
    return len(rows) >= len(OF_KEY) and set(rows) == {VOCABULARY}
