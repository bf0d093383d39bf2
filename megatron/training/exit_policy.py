"""When a run ends: its last iteration, `exit_interval`, `exit_duration_minutes`, a polite signal, or a save that failed; agreed on by all ranks.

A signal reaches the ranks at different moments of a step, and their clocks differ. Stopping where it arrives would leave some ranks waiting in
a collective for ever, so each rank only notes what it knows, and before every step the ranks compare notes: they all stop before the same
step. That is one all-reduce of a few numbers a step.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from megatron.mpu.collectives import all_reduce_sums
from megatron.mpu.groups import Group
from megatron.stopping import POLITE_SIGNALS, STOPPED, PoliteSignals, status_of_signal
from megatron.training.state import TrainState


class ExitPolicy:
    """Decides, the same on all ranks, whether the run is over; `reason` then says why, and `cut_short` whether it would go on otherwise.

    exit_minutes: how long the run may take, by the clock of rank 0; minutes: those since the job was started, start-up and earlier attempts
    included. save_failed: whether a checkpoint that this rank was writing in the background could not be written.
    """

    def __init__(
        self,
        *,
        train_iters: int,
        world: Group,
        exit_interval: int | None = None,
        exit_minutes: float | None = None,
        minutes: Callable[[], float] = lambda: 0.0,
        save_failed: Callable[[], bool] = lambda: False,
    ) -> None:
        self._train_iters = train_iters
        self._exit_interval = exit_interval
        self._exit_minutes = exit_minutes
        self._minutes = minutes
        self._save_failed = save_failed
        self._world = world
        self._started_at: int | None = None
        self._signals = PoliteSignals()
        self._stopped_by: signal.Signals | None = None
        self.reason = ""
        self.cut_short = False

    def listen(self, signals: PoliteSignals | None = None) -> None:
        """From now on note polite signals instead of dying of them. signals: what was noted before, while the run was being built."""
        self._signals = signals or self._signals
        self._signals.note()

    def reached(self, state: TrainState) -> bool:
        """Whether to stop before the next step (collective: every rank asks)."""
        if self._started_at is None:
            self._started_at = state.iteration
        self.reason = self._why(state)
        return bool(self.reason)

    def exit_status(self, *, saves: bool) -> int:
        """What the process exits with, by `megatron.stopping`. saves: whether the run has a place for checkpoints."""
        if not self.cut_short:
            return 0
        # A limit of time needs a place for checkpoints, which the configuration is checked for.
        return STOPPED if saves or self._stopped_by is None else status_of_signal(self._stopped_by)

    def _why(self, state: TrainState) -> str:
        if state.iteration >= self._train_iters:
            return "the last iteration is done"
        *signalled, time_is_over, save_has_failed = all_reduce_sums(self._notes(), self._world)
        if save_has_failed:
            return "a checkpoint could not be saved"
        self._stopped_by = next((each for each, count in zip(POLITE_SIGNALS, signalled, strict=True) if count), None)
        self.cut_short = self._stopped_by is not None or time_is_over > 0
        if self._stopped_by is not None:
            return f"stopped by {self._stopped_by.name}"
        if time_is_over:
            return f"exit_duration_minutes {self._exit_minutes:g} are over"
        moved = state.iteration > (self._started_at or 0)
        if self._exit_interval and moved and state.iteration % self._exit_interval == 0:
            return f"exit_interval {self._exit_interval} is reached"
        return ""

    def _notes(self) -> list[float]:
        """What this rank knows: a flag for each polite signal, one for the time, which only rank 0 looks at, and one for a failed save."""
        timed = self._exit_minutes is not None and self._world.rank == 0
        time_is_over = timed and self._minutes() >= (self._exit_minutes or 0)
        signalled = [self._signals.first == each for each in POLITE_SIGNALS]
        return [float(flag) for flag in (*signalled, time_is_over, self._save_failed())]
