"""One training step: seed, fetch the global batch, forward and backward, update; and what it measured."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from megatron.data.batch import Batch
from megatron.engine.protocol import Engine, StepResult
from megatron.monitor.devices import peak_memory_bytes
from megatron.monitor.metrics import StepMetrics
from megatron.mpu.random import seed_step
from megatron.neox_arguments import NeoXArgs
from megatron.optim.lr_schedules import learning_rate
from megatron.training.speed import Speed
from megatron.training.state import TrainState


@dataclass(frozen=True)
class TimedResult:
    """What one step gave and how long it took, data loading included."""

    result: StepResult
    seconds: float


def train_step(
    args: NeoXArgs, engine: Engine, batches: Iterator[Sequence[Batch] | None], state: TrainState
) -> TimedResult:
    """Run step number `state.iteration` (counted from 0)."""
    started = time.perf_counter()
    groups = engine.groups
    seed_step(args.seed, state.iteration, groups.topology.coordinates(groups.rank))
    result = engine.train_step(next(batches), lr=learning_rate(args, state.iteration))
    return TimedResult(result, time.perf_counter() - started)


def measure(step: TimedResult, state: TrainState, speed: Speed) -> StepMetrics:
    """The metrics of the step that led to `state`."""
    result = step.result
    return StepMetrics(
        iteration=state.iteration,
        consumed_samples=state.consumed_samples,
        consumed_tokens=state.consumed_tokens,
        loss=result.loss,
        lr=result.lr,
        grad_norm=result.grad_norm,
        loss_scale=result.loss_scale,
        skipped=result.skipped,
        step_seconds=step.seconds,
        tokens_per_second=speed.tokens_per_step / step.seconds,
        model_flops_per_second=speed.model_flops_per_step / step.seconds,
        hardware_flops_per_second=speed.hardware_flops_per_step / step.seconds,
        mfu=speed.mfu(step.seconds),
        memory_bytes=peak_memory_bytes(speed.device),
    )
