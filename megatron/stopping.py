"""How a run is asked to stop, and what its exit status says about it. Launcher, ranks and schedulers agree on these numbers.

status      meaning
0           the run reached its end: train_iters, or exit_interval
75          it was cut short (a polite signal, or exit_duration_minutes) and what it did is saved: the same command goes on
128 + n     it was cut short by signal n and nothing was saved, because `save` is not set or because there is nothing to save
others      it failed
"""

from __future__ import annotations

import signal
from collections.abc import Iterable
from types import FrameType

POLITE_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""Signals that ask a run to save and stop: of schedulers that take a machine back, of a terminal, and of Slurm's --signal=USR1@SECONDS."""

STOPPED = 75
"""EX_TEMPFAIL of sysexits.h, "try again later". Neither Python (1, 2) nor a shell (126 to 165) gives it another meaning, so that a job script
can tell a run to put back into the queue from one that failed."""


def status_of_signal(number: int) -> int:
    """The status of a program that a signal ended, as shells have it."""
    return 128 + number


class PoliteSignals:
    """Notes the first polite signal instead of dying of it; whoever steers the run asks for it. first: that signal, None so far."""

    def __init__(self) -> None:
        self.first: signal.Signals | None = None

    def note(self, numbers: Iterable[signal.Signals] = POLITE_SIGNALS) -> None:
        """From now on these are noted. Repeats change nothing: a scheduler and the launcher may both send one. Call it in the main thread."""
        for number in numbers:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.first = self.first or signal.Signals(number)
