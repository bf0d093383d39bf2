"""What a forked rank does with cells: the real path from arguments over layer specs to an engine, five steps, and the comparison."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from megatron.engine.build import build_engine
from megatron.engine.protocol import Engine, StepResult
from megatron.initialize import join_world
from megatron.mpu.groups import ProcessGroups
from megatron.mpu.shard import shard_of
from megatron.optim.lr_schedules import learning_rate
from megatron.training.objectives.next_token import NextTokenObjective
from tests.distributed.matrix.batches import own_batches
from tests.distributed.matrix.cell import STEPS, VOCABULARY, Cell, Grid
from tests.distributed.matrix.double import fp64_engines
from tests.distributed.matrix.reference import Reference, model_specs

OF_KEY = {"weight": "weights", "exp_avg": "first moments", "exp_avg_sq": "second moments"}

FLOOR = 0.1
"""A tensor's deviation is relative to its largest value, or to this share of the largest of its kind: some are rounding noise alone."""


@dataclass
class Part:
    """What one rank saw of a cell.

    deviations: the largest relative one of each kind, and where; saved: how many values of each tensor it gave to be saved; groups:
    process groups that exist when the cell is over.
    """

    deviations: dict[str, tuple[float, str]] = field(default_factory=dict)
    saved: dict[str, int] = field(default_factory=dict)
    groups: int = 0
    seconds: float = 0.0

    def note(self, kind: str, deviation: float, where: str) -> None:
        """Keep the worst; what is not finite is infinitely wrong."""
        value = deviation if math.isfinite(deviation) else math.inf
        if value >= self.deviations.get(kind, (0.0, ""))[0]:
            self.deviations[kind] = (value, where)


@dataclass(frozen=True)
class Job:
    """A cell to be run. plant: makes the context in which a rank runs it, to change what is computed; the reference stays right."""

    cell: Cell
    expected: Reference
    plant: Callable[[], AbstractContextManager[Any]] = nullcontext


def run_on_rank(rank: int, jobs: Sequence[Job]) -> list[Part]:
    """The parts of this rank in each job."""
    parts = []
    for job in jobs:
        started = time.perf_counter()
        try:
            with fp64_engines() if job.cell.precision == "fp64" else nullcontext(), job.plant():
                part = _run(job.cell, job.expected)
        except Exception as error:
            raise RuntimeError(f"in the cell {job.cell.name!r}") from error
        part.groups = len(dist.distributed_c10d._world.pg_map)
        part.seconds = time.perf_counter() - started
        parts.append(part)
    return parts


def _run(cell: Cell, expected: Reference) -> Part:
    args = cell.arguments()
    groups = _groups(cell.grid, cell)
    part = Part()
    with temporary_groups():
        objective = NextTokenObjective(group=groups.tensor, vocab_size=VOCABULARY)
        engine = build_engine(args, specs=model_specs(args), objective=objective, groups=groups, device="cpu")
        for step in range(STEPS):
            batches = own_batches(cell, groups, step) if engine.reads_data else None
            result = engine.train_step(batches, lr=learning_rate(args, step))
            _compare_step(part, result, expected, step)
            if step == 0:
                _compare_tensors(part, engine, expected.gradients, {"exp_avg": "gradients"})
        _compare_tensors(part, engine, expected.state, OF_KEY)
        batches = own_batches(cell, groups, STEPS) if engine.reads_data else None
        for value, known in zip(engine.evaluate_step(batches), expected.evaluation, strict=True):
            part.note("evaluation", abs(value / known - 1), "evaluation")
        part.saved = {
            name: sum(piece.tensor.numel() for piece in full.pieces)
            for name, full in engine.state_tensors(for_saving=True).items()
        }
        part.note("padding", _largest_padding(engine), "vocabulary padding")
        if args.deepspeed:
            engine.library_engine.destroy()  # type: ignore[attr-defined]
    return part


def _compare_step(part: Part, result: StepResult, expected: Reference, step: int) -> None:
    norm = math.nan if result.grad_norm is None else result.grad_norm
    part.note("loss", abs(result.loss / expected.losses[step] - 1), f"loss of step {step}")
    part.note("norm", abs(norm / expected.norms[step] - 1), f"gradient norm of step {step}")


def _compare_tensors(part: Part, engine: Engine, expected: dict[str, Tensor], kinds: dict[str, str]) -> None:
    """Every value this rank holds, copies included, with the same value of the reference."""
    floors = {
        key: FLOOR * max(float(tensor.abs().max()) for name, tensor in expected.items() if name.endswith(f"/{key}"))
        for key in kinds
    }
    for name, full in engine.state_tensors().items():
        key = name.rpartition("/")[2]
        if key not in kinds:
            continue
        known = expected[name]
        scale = max(float(known.abs().max()), floors[key])
        for piece in full.pieces:
            where = tuple(slice(o, o + n) for o, n in zip(piece.offsets, piece.tensor.shape, strict=True))
            difference = (piece.tensor.to(torch.float64) - known[where]).abs().max()
            part.note(kinds[key], float(difference) / scale, name)


def _largest_padding(engine: Engine) -> float:
    """The largest value in padding rows of vocabularies, which begin as zeros and stay so. (Under ZeRO 3 nobody has whole rows.)"""
    largest = 0.0
    for parameter in engine.model.parameters():
        info = shard_of(parameter)
        if info.valid_rows is not None and parameter.shape == info.local_shape:
            rows = parameter.detach()[max(info.valid_rows - info.rank * info.local_shape[0], 0) :]
            largest = max(largest, float(rows.abs().max()) if rows.numel() else 0.0)
    return largest


known_groups: dict[Grid, ProcessGroups] = {}


def _groups(grid: Grid, cell: Cell) -> ProcessGroups:
    """The process groups of a grid, made when its first cell comes and kept for the others."""
    if grid not in known_groups:
        known_groups[grid] = join_world(cell.arguments()).groups
    return known_groups[grid]


@contextmanager
def temporary_groups() -> Iterator[None]:
    """End the process groups that are made inside: those of an engine for itself."""
    table = dist.distributed_c10d._world.pg_map
    before = set(table)
    yield
    for group in set(table) - before:
        dist.destroy_process_group(group)
