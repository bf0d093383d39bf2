"""A job that loses machines and goes on with fewer data-parallel ranks is the job that lost none: data, losses, weights, counters.

Each job runs through `pretrain`, attempt after attempt, on what `next_attempt` makes of it, and is compared with one that ran without a
break on one process, as any layout gives the same numbers (`matrix`). In fp64 what remains of another order of sums is below 1e-10.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from megatron.checkpointing.compare import deviations
from megatron.checkpointing.inspecting.tensors import TensorReader
from megatron.checkpointing.layout import checkpoint_name
from megatron.environment import JOB_VARIABLE
from megatron.launcher.base import Host
from megatron.launcher.next_attempt import FirstAttempt, next_attempt
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.reading.values import ConfigValues
from megatron.training.pretrain import pretrain
from tests.distributed.matrix.cell import Grid
from tests.distributed.matrix.double import fp64_engines
from tests.distributed.matrix.ranks import temporary_groups
from tests.distributed.matrix.running import TOLERANCES
from tests.distributed.resharding.cases import Layout, Training, settings
from tests.distributed.resharding.running import write_data
from tests.worlds import run_world

STEPS = 6
RAMP = {"rampup_batch_size": [8, 8, 24]}  # the third step is the last of 8 samples
DATA_4 = Layout(Grid(data=4))
OF_STEP = ("iteration", "consumed_samples", "consumed_tokens", "lr", "skipped")


@dataclass(frozen=True)
class Story:
    """A job on machines with these slots, in a layout. losses: for each attempt but the first, the machines lost by then (all so far) and
    the step after which the one before ended; becomes: (data-parallel size, micro-batch, accumulation) of each attempt.
    """

    slots: Sequence[int]
    losses: Sequence[tuple[str, int]]
    becomes: Sequence[tuple[int, int, int]]
    layout: Layout = DATA_4
    keys: Mapping[str, Any] = field(default_factory=dict)


STORIES = {
    "ZeRO 3, twice": Story(
        [1, 1, 1, 1], [("ad", 2), ("acd", 4)], [(4, 2, 2), (2, 2, 4), (1, 2, 8)], Layout(Grid(data=4), zero=3)
    ),
    "ZeRO 2, to 3 of 4": Story(
        [1, 1, 1, 1],
        [("b", 3)],
        [(4, 1, 3), (3, 1, 4)],
        Layout(Grid(data=4), zero=2),
        {"train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 3},
    ),
    "ZeRO 0, within a ramp": Story([2, 2], [("a", 2)], [(4, 2, 2), (2, 2, 4)], keys=RAMP),
    "tensor, ZeRO 1": Story([2, 2], [("a", 3)], [(2, 4, 2), (1, 4, 4)], Layout(Grid(data=2, tensor=2), zero=1)),
    "pipeline, ZeRO 1, within a ramp": Story(
        [2, 1, 1], [("a", 2)], [(2, 4, 2), (1, 4, 4)], Layout(Grid(data=2, pipe=2), zero=1), RAMP
    ),
    "a smaller micro-batch": Story(
        [1, 1, 1],
        [("b", 3)],
        [(3, 4, 1), (2, 3, 2)],
        Layout(Grid(data=3)),
        {"train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 1},
    ),
}


@dataclass(frozen=True)
class Attempt:
    """One start of a job. restarts: how many there were before; ends_after: a step after which it ends, None for the last."""

    job: str
    args: NeoXArgs
    restarts: int
    ends_after: int | None


def configured(name: str, layout: Layout, keys: Mapping[str, Any], folder: Path) -> ConfigValues:
    """What the user of a job writes; it saves and logs in the folder of its name."""
    places = {"data_path": str(folder / "data"), "save": str(folder / name), "log_dir": str(folder / name)}
    restarts = {"max_restarts": 3, "elastic": True, "checkpoint_factor": STEPS, "train_iters": STEPS}
    return ConfigValues.from_dict({**settings(Training(name, dropout=0.2), layout), **restarts, **keys, **places})


def attempts_of(name: str, story: Story, folder: Path) -> list[Attempt]:
    """All attempts of a job that loses machines."""
    values = configured(name, story.layout, story.keys, folder)
    machines = tuple(Host(chr(ord("a") + n), tuple(range(slots))) for n, slots in enumerate(story.slots))
    first = FirstAttempt(values, NeoXArgs.from_values(values), machines)
    configs = [first.args, *(next_attempt(first, lost).args for lost, _ in story.losses)]
    ends = [*(step for _, step in story.losses), None]
    return [Attempt(name, args, n, end) for n, (args, end) in enumerate(zip(configs, ends, strict=True))]


def unbroken(batch: int, ramp: Any, folder: Path) -> Attempt:
    """A job of one process that loses nothing."""
    name = f"{batch}, {ramp}"
    sizes = {"train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": batch // 4, "rampup_batch_size": ramp}
    return Attempt(name, NeoXArgs.from_values(configured(name, Layout(), sizes, folder)), 0, None)


def run_attempts(rank: int, attempts: Sequence[Attempt]) -> None:
    """Run these one after another in one world: as started ranks do, but that they do not leave it."""
    with fp64_engines(), patch("megatron.training.pretrain.shutdown"):
        for attempt in attempts:
            os.environ.update({JOB_VARIABLE: attempt.job, "TORCHELASTIC_RESTART_COUNT": str(attempt.restarts)})
            with temporary_groups():
                pretrain(attempt.args.model_copy(update={"exit_interval": attempt.ends_after}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("elastic")


@cache
def run_jobs(folder: Path) -> dict[str, list[NeoXArgs]]:
    """Run all jobs, a world for each number of processes; the arguments of all attempts of those that lose machines."""
    write_data(folder / "data")
    jobs = {name: attempts_of(name, story, folder) for name, story in STORIES.items()}
    batches = {twin_of(attempts[0].args) for attempts in jobs.values()}
    everything = [*(unbroken(*batch, folder) for batch in batches), *chain.from_iterable(jobs.values())]
    for size in sorted({attempt.args.global_num_gpus for attempt in everything}, reverse=True):
        run_world(size, run_attempts, [each for each in everything if each.args.global_num_gpus == size])
    return {name: [each.args for each in attempts] for name, attempts in jobs.items()}


def twin_of(args: NeoXArgs) -> tuple[int, Any]:
    """What the numbers of a job follow from."""
    return args.train_batch_size, args.rampup_batch_size


def steps(directory: Path) -> list[dict[str, Any]]:
    records = map(json.loads, (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [record for record in records if "loss" in record]


@pytest.mark.parametrize("name", STORIES)
def test_fewer_ranks_go_on_as_all_would_have(name: str, folder: Path) -> None:
    attempts = run_jobs(folder)[name]
    sizes = [(a.data_parallel_size, a.train_micro_batch_size_per_gpu, a.gradient_accumulation_steps) for a in attempts]
    assert sizes == list(STORIES[name].becomes)
    broken, whole_run = folder / name, folder / unbroken(*twin_of(attempts[0]), folder).job
    pieces, whole = steps(broken), steps(whole_run)
    assert [[step[key] for key in OF_STEP] for step in pieces] == [[step[key] for key in OF_STEP] for step in whole]
    assert len(whole) == STEPS
    scalars, tensors = TOLERANCES["fp64"]
    for key in ("loss", "grad_norm"):
        for ours, known in zip(pieces, whole, strict=True):
            assert math.isclose(ours[key], known[key], rel_tol=scalars), (key, ours["iteration"])
    readers = (TensorReader(directory / checkpoint_name(STEPS)) for directory in (broken, whole_run))
    assert max(deviations(*readers).values()) < tensors
