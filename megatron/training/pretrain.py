"""The story of a training run, from a configuration to a trained model on disk."""

from __future__ import annotations

import time

from megatron.initialize import World, join_world, shutdown
from megatron.log import configure_logging
from megatron.neox_arguments import NeoXArgs
from megatron.training.batches import resolve_epochs
from megatron.training.loop import Run, train
from megatron.training.out_of_memory import explained_out_of_memory
from megatron.training.setup import build_run
from megatron.training.state import TrainState
from megatron.training.summary import facts_of_result, facts_of_run


def pretrain(args: NeoXArgs) -> TrainState:
    """Train as configured, from the last checkpoint if there is one; returns the state reached (every rank calls this)."""
    started = time.perf_counter()
    world = join_world(args)
    configure_logging(world.groups.rank)
    with explained_out_of_memory(args):
        return _pretrain(args, world, started)


def _pretrain(args: NeoXArgs, world: World, started: float) -> TrainState:
    run, state = build_run(resolve_epochs(args), world)
    try:
        state = _train_or_say_why_not(run, state, started)
    except BaseException:
        run.reporter.close(failed=True)
        raise
    run.reporter.close()
    shutdown()
    return state


def _train_or_say_why_not(run: Run, state: TrainState, started: float) -> TrainState:
    total = run.args.train_iters
    assert total is not None
    run.reporter.summary("training", facts_of_run(run, state))
    if state.iteration >= total:
        run.reporter.message(
            f"this run is complete: {state.iteration} of {total} iterations are done; raise train_iters to go on, "
            f"or remove {run.args.load} to start again"
        )
        return state
    run.exit_policy.listen()
    if state.iteration == 0:
        run.checkpointer.maybe_save(state)
    run.reporter.start(iteration=state.iteration, total=total)
    with run.guards.watching():
        state = train(run, state)
        with run.guards.slow(state):
            run.checkpointer.finish(state)
            if state.iteration >= total:
                run.evaluator.finish(state)
    run.reporter.message(f"training ended after iteration {state.iteration}: {run.exit_policy.reason}")
    run.reporter.summary("where everything lies", facts_of_result(run.args, seconds=time.perf_counter() - started))
    return state
