"""The training loop."""

from __future__ import annotations

from dataclasses import dataclass

from megatron.engine.protocol import Engine
from megatron.monitor.reporter import Reporter
from megatron.neox_arguments import NeoXArgs
from megatron.training.checkpointer import Checkpointer
from megatron.training.evaluate import Evaluator
from megatron.training.exit_policy import ExitPolicy
from megatron.training.guards.guard import Guards
from megatron.training.pipeline_meter import PipelineMeter
from megatron.training.rollback import Rollback
from megatron.training.run_data import RunData
from megatron.training.speed import Speed
from megatron.training.state import TrainState
from megatron.training.step import measure, train_step


@dataclass(frozen=True)
class Run:
    """Everything the loop uses, built by `megatron.training.setup`; `parameters` counts the model's, padding left out."""

    args: NeoXArgs
    engine: Engine
    data: RunData
    reporter: Reporter
    evaluator: Evaluator
    checkpointer: Checkpointer
    exit_policy: ExitPolicy
    speed: Speed
    parameters: int
    guards: Guards
    meter: PipelineMeter
    roll_back: Rollback


def train(run: Run, state: TrainState) -> TrainState:
    """Step until the exit policy says stop; returns the state reached. Raises NeoXError when the run diverges."""
    guards = run.guards
    batches = guards.follow(run.data.batches, run.data.documents)
    while not run.exit_policy.reached(state):
        work = run.speed.work_of(state.iteration)
        guards.begin(state)
        run.meter.begin(state.iteration + 1)
        step = train_step(run.args, run.engine, batches, state, work.shape)
        skipped = step.result.skipped or step.result.withheld
        state = state.advance(samples=work.samples, tokens=work.tokens, skipped=skipped)
        times = run.meter.read(micro_batches=work.shape.micro_batches)
        run.reporter.step(measure(step, state, work, run.speed, times))
        run.checkpointer.poll(state)
        state, spike = guards.check(state, step.result)
        with guards.slow(state):
            if spike is not None:
                state, data = run.roll_back(state, spike)
                if data is not None:
                    batches = guards.follow(data.batches, data.documents)
                    continue
            run.evaluator.maybe_run(state)
            if state.iteration == run.args.train_iters:
                # Before the last save: a run that is killed here is not complete yet, and will come here again.
                run.evaluator.finish(state)
            run.checkpointer.maybe_save(state)
    guards.finish(state)
    return state
