"""When a run ends: its last iteration, `exit_interval`, or a polite signal (SIGTERM, SIGINT), agreed on by all ranks.

A signal reaches the ranks at different moments of a step. Stopping where it arrives would leave some ranks waiting in a collective for ever,
so each rank only notes it, and before every step the ranks compare notes: they all stop before the same step.
"""

from __future__ import annotations

import signal
from types import FrameType

from megatron.mpu.collectives import all_reduce_sum
from megatron.mpu.groups import Group
from megatron.training.state import TrainState

POLITE_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class ExitPolicy:
    """Decides, the same on all ranks, whether the run is over; `reason` then says why."""

    def __init__(self, *, train_iters: int, exit_interval: int | None, world: Group) -> None:
        self._train_iters = train_iters
        self._exit_interval = exit_interval
        self._world = world
        self._started_at: int | None = None
        self._signal: signal.Signals | None = None
        self.reason = ""

    def listen(self) -> None:
        """From now on note polite signals instead of dying of them.

        Repeats change nothing: a terminal's Ctrl-C and the launcher's forwarding may both arrive. Only SIGKILL is impolite.
        """
        for number in POLITE_SIGNALS:
            signal.signal(number, self._note)

    def reached(self, state: TrainState) -> bool:
        """Whether to stop before the next step (collective: every rank asks)."""
        if self._started_at is None:
            self._started_at = state.iteration
        self.reason = self._why(state)
        return bool(self.reason)

    def _why(self, state: TrainState) -> str:
        if state.iteration >= self._train_iters:
            return "the last iteration is done"
        if all_reduce_sum(float(self._signal is not None), self._world) > 0:
            return f"stopped by {self._signal.name}" if self._signal else "stopped by a signal to another rank"
        moved = state.iteration > (self._started_at or 0)
        if self._exit_interval and moved and state.iteration % self._exit_interval == 0:
            return f"exit_interval {self._exit_interval} is reached"
        return ""

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signal = signal.Signals(number)
