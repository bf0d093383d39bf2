"""The story of a training run, from a configuration to a trained model on disk."""

from __future__ import annotations

import time
from dataclasses import dataclass

from megatron.initialize import World, join_world, shutdown
from megatron.log import configure_logging
from megatron.neox_arguments import NeoXArgs
from megatron.stopping import PoliteSignals
from megatron.training.batches import resolve_epochs
from megatron.training.loop import Run, train
from megatron.training.out_of_memory import explained_out_of_memory
from megatron.training.setup import build_run
from megatron.training.state import TrainState
from megatron.training.summary import facts_of_result, facts_of_run


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the state it reached, and what its processes exit with (`megatron.stopping`)."""

    state: TrainState
    exit_status: int


def pretrain(args: NeoXArgs, signals: PoliteSignals | None = None) -> Outcome:
    """Train as configured, from the last checkpoint if there is one (every rank calls this). signals: what is noted already."""
    started = time.perf_counter()
    world = join_world(args)
    configure_logging(world.groups.rank)
    with explained_out_of_memory(args):
        return _pretrain(args, world, started, signals)


def _pretrain(args: NeoXArgs, world: World, started: float, signals: PoliteSignals | None) -> Outcome:
    run, state = build_run(resolve_epochs(args), world)
    try:
        state = _train_or_say_why_not(run, state, started, signals)
    except BaseException:
        run.checkpointer.give_last_chance()
        run.reporter.close(failed=True)
        raise
    run.reporter.close()
    shutdown()
    return Outcome(state, run.exit_policy.exit_status(saves=args.save is not None))


def _train_or_say_why_not(run: Run, state: TrainState, started: float, signals: PoliteSignals | None) -> TrainState:
    total = run.args.train_iters
    assert total is not None
    run.reporter.summary("training", facts_of_run(run, state))
    if state.iteration >= total:
        run.reporter.message(
            f"this run is complete: {state.iteration} of {total} iterations are done; raise train_iters to go on{_rates_then(run.args)}, "
            f"or remove {run.args.load} to start again"
        )
        run.checkpointer.finish(state)  # what a kill may have kept from being done after the last save
        return state
    run.exit_policy.listen(signals)
    if state.iteration == 0:
        run.checkpointer.maybe_save(state)
    run.reporter.start(iteration=state.iteration, total=total)
    with run.guards.watching():
        state = train(run, state)
        with run.guards.slow(state):
            run.checkpointer.finish(state)
    unsaved = "; nothing was saved, because save is not set" if run.exit_policy.cut_short and not run.args.save else ""
    run.reporter.message(f"training ended after iteration {state.iteration}: {run.exit_policy.reason}{unsaved}")
    run.reporter.summary("where everything lies", facts_of_result(run.args, seconds=time.perf_counter() - started))
    return state


def _rates_then(args: NeoXArgs) -> str:
    """What else a longer run needs, where its learning rates would be others."""
    if args.lr_decay_iters is not None or args.lr_decay_style == "constant":
        return ""
    return " (with override_lr_scheduler: true for a longer decay, or use_checkpoint_lr_scheduler: true to stay at its end)"
