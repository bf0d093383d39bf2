"""The training loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from megatron.data.batch import Batch
from megatron.engine.protocol import Engine
from megatron.monitor.reporter import Reporter
from megatron.neox_arguments import NeoXArgs
from megatron.training.checkpointer import Checkpointer
from megatron.training.divergence import DivergenceGuard
from megatron.training.evaluate import Evaluator
from megatron.training.exit_policy import ExitPolicy
from megatron.training.speed import Speed
from megatron.training.state import TrainState
from megatron.training.step import measure, train_step


@dataclass(frozen=True)
class Run:
    """Everything the loop uses, built by `megatron.training.setup`; `parameters` counts the model's, padding left out."""

    args: NeoXArgs
    engine: Engine
    batches: Iterator[Sequence[Batch] | None]
    reporter: Reporter
    evaluator: Evaluator
    checkpointer: Checkpointer
    exit_policy: ExitPolicy
    speed: Speed
    parameters: int


def train(run: Run, state: TrainState) -> TrainState:
    """Step until the exit policy says stop; returns the state reached. Raises NeoXError when the run diverges."""
    guard = DivergenceGuard()
    while not run.exit_policy.reached(state):
        step = train_step(run.args, run.engine, run.batches, state)
        guard.check(state.iteration + 1, step.result)
        state = state.advance(
            samples=run.args.train_batch_size, tokens=run.speed.tokens_per_step, skipped=step.result.skipped
        )
        run.reporter.step(measure(step, state, run.speed))
        run.evaluator.maybe_run(state)
        run.checkpointer.maybe_save(state)
    return state
