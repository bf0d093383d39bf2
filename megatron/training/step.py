"""One training step: fetch the global batch, forward and backward, update; and what it measured."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from megatron.data.batch import Batch
from megatron.engine.protocol import Engine, StepResult, StepShape
from megatron.monitor.devices import peak_memory_bytes
from megatron.monitor.metrics import StepMetrics
from megatron.neox_arguments import NeoXArgs
from megatron.optim.lr_schedules import learning_rate
from megatron.training.pipeline_meter import PipelineTimes
from megatron.training.speed import Speed, StepWork
from megatron.training.state import TrainState


@dataclass(frozen=True)
class TimedResult:
    """What one step gave and how long it took, data loading included."""

    result: StepResult
    seconds: float


def train_step(
    args: NeoXArgs, engine: Engine, batches: Iterator[Sequence[Batch] | None], state: TrainState, shape: StepShape
) -> TimedResult:
    """Run step number `state.iteration` (counted from 0), whose batches have this shape."""
    started = time.perf_counter()
    result = engine.train_step(next(batches), lr=learning_rate(args, state.iteration), shape=shape)
    return TimedResult(result, time.perf_counter() - started)


def measure(
    step: TimedResult, state: TrainState, work: StepWork, speed: Speed, times: PipelineTimes | None = None
) -> StepMetrics:
    """The metrics of the step of this work that led to `state`. times: of the pipeline, where they were taken."""
    result = step.result
    return StepMetrics(
        iteration=state.iteration,
        consumed_samples=state.consumed_samples,
        consumed_tokens=state.consumed_tokens,
        loss=result.loss,
        lr=result.lr,
        grad_norm=result.grad_norm,
        loss_scale=result.loss_scale,
        skipped=result.skipped or result.withheld,
        step_seconds=step.seconds,
        tokens_per_second=work.tokens / step.seconds,
        model_flops_per_second=work.model_flops / step.seconds,
        hardware_flops_per_second=work.hardware_flops / step.seconds,
        mfu=speed.mfu(work, step.seconds),
        memory_bytes=peak_memory_bytes(speed.device),
        pipeline_bubble=times.bubble if times else None,
        pipeline_bubble_expected=times.expected if times else None,
        stage_seconds=times.stage_seconds if times else None,
    )
