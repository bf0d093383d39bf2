"""All guards of a run behind one face, which the training loop tells what it does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from megatron.data.batch import Batch
from megatron.engine.protocol import Engine, StepResult
from megatron.monitor.reporter import Reporter
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.derive import is_checkpoint_iteration
from megatron.neox_arguments.keys.guards import LossSpikeKeys
from megatron.training.guards.desync import DesyncGuard
from megatron.training.guards.divergence import DivergenceGuard
from megatron.training.guards.documents import DocumentsOf
from megatron.training.guards.heartbeats import open_heartbeats
from megatron.training.guards.nonfinite import diagnose, is_suspicious
from megatron.training.guards.spikes import Spike, SpikeGuard
from megatron.training.guards.watchdog import Watchdog
from megatron.training.state import TrainState

Batches = Iterator[Sequence[Batch] | None]


class Guards:
    """Each does what its key says, and nothing where that says so."""

    def __init__(self, args: NeoXArgs, engine: Engine, reporter: Reporter) -> None:
        world = engine.groups.world
        self._documents: DocumentsOf | None = None
        self._args = args
        self._engine = engine
        self._reporter = reporter
        self._divergence = DivergenceGuard()
        self._desync = DesyncGuard(engine, interval=args.check_desync)
        self._spikes = build_spike_guard(args, engine)
        heartbeats = open_heartbeats(rank=world.rank, size=world.size) if args.step_timeout else None
        self._watchdog = Watchdog(timeout=args.step_timeout, heartbeats=heartbeats, size=world.size)
        self._was_suspicious = False
        self._iteration = 0

    def watching(self) -> AbstractContextManager[None]:
        """Watch within it that the run does not stand still."""
        return self._watchdog.watching()

    @contextmanager
    def slow(self, state: TrainState) -> Iterator[None]:
        """Within it the run may stand still for longer: it evaluates or saves."""
        self._watchdog.note(state.iteration, 2, f"evaluating or saving after iteration {state.iteration}", slow=True)
        yield
        self._watchdog.note(state.iteration, 3, f"between iterations {state.iteration} and {state.iteration + 1}")

    def alive(self) -> None:
        """The run stands still for something that has a limit of its own, such as a save that has to be waited for."""
        self._watchdog.alive()

    def follow(self, batches: Batches, documents: DocumentsOf) -> Batches:
        """The batches, noticing that they arrive; `documents` says what they are made of."""
        self._documents = documents
        for batch in batches:
            self._watchdog.note(self._iteration, 1, f"computing iteration {self._iteration + 1}")
            yield batch

    def begin(self, state: TrainState) -> None:
        """A step begins at this state, by reading its batch."""
        self._iteration = state.iteration
        self._watchdog.note(state.iteration, 0, f"reading the batch of iteration {state.iteration + 1}")
        if self._spikes is not None:
            self._spikes.begin(state)

    def check(self, state: TrainState, result: StepResult) -> tuple[TrainState, Spike | None]:
        """The state to go on with after the step that led to `state`, and a spike for which to go back to a checkpoint (collective).

        Raises NeoXError on every rank when the run must not go on.
        """
        self._watchdog.finish_step()
        self._explain_non_finite(state, result)
        self._divergence.check(state.iteration, result)
        if self._desync.is_due(state.iteration) or (
            self._args.check_desync and is_checkpoint_iteration(self._args, state.iteration)
        ):
            self._desync.check(state.iteration)
        if self._spikes is None:
            return state, None
        state, spike = self._spikes.look(state, result)
        if spike is not None and self._spikes.rule.policy != "rollback":
            self._tell(state, spike)
            spike = None
        return state, spike

    def finish(self, state: TrainState) -> None:
        """Training is over, and its state may be saved (collective). Raises NeoXError as `check`."""
        if self._args.check_desync:
            self._desync.check(state.iteration)

    def _explain_non_finite(self, state: TrainState, result: StepResult) -> None:
        suspicious = self._args.diagnose_nan and is_suspicious(result, fp16=self._args.precision == "fp16")
        if suspicious and not self._was_suspicious:
            finding = diagnose(self._engine, iteration=state.iteration, documents=self._documents)
            self._reporter.event(
                state.iteration,
                {"non_finite": finding},
                f"iteration {state.iteration} has a loss of {result.loss:g} and gradients that are not finite: {finding}"
                if result.skipped
                else f"iteration {state.iteration} has a loss of {result.loss:g}: {finding}",
            )
        self._was_suspicious = suspicious

    def _tell(self, state: TrainState, spike: Spike) -> None:
        assert self._spikes is not None
        policy = self._spikes.rule.policy
        done = (
            f"; its update is left out ({state.spikes_handled} of {self._spikes.rule.budget})"
            if policy == "skip"
            else ""
        )
        values = {"loss_spike": policy, "spike_value": spike.value, "spike_score": spike.score}
        self._reporter.event(state.iteration, values, f"spike in iteration {state.iteration}: {spike}{done}")


def build_spike_guard(args: NeoXArgs, engine: Engine) -> SpikeGuard | None:
    """The guard that `loss_spike` asks for, if it does; for policy `skip` it is the engine's judge."""
    if args.loss_spike is None:
        return None
    guard = SpikeGuard(LossSpikeKeys.model_validate(args.loss_spike), world=engine.groups.world)
    if guard.rule.policy == "skip":
        engine.ask(guard.allows)
    return guard
