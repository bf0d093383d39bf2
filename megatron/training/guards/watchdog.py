"""A run that stands still is ended with a reason (`step_timeout`): a thread of every rank watches that its steps go on.

A rank that is stopped or lost leaves the others waiting in a collective without a word. When one of them has waited too long it raises an
alarm; every rank that can prints its Python stacks, and all exit, which lets the launcher end those that cannot.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator

from megatron.training.guards.heartbeats import Heartbeats, Progress
from megatron.training.guards.last_words import dump_stacks, exit_with, stall_message
from megatron.training.guards.roll_call import RollCall

SLOW_FACTOR = 10.0
"""How much longer the first step, an evaluation and a checkpoint may take."""

LONGEST_FACTOR = 4.0
"""How many times the longest step so far a step may take in any case."""

TICKS = 20
"""Looks at the clock in the time of a step that is given up."""

LONGEST_TICK = 2.0
"""Seconds."""


class Watchdog:
    """Told by the main thread what it does (`note`), watches from a thread of its own that it does something else in time.

    on_stall is called in that thread with the reason of the stall, and does not return in a run.
    """

    def __init__(
        self,
        *,
        timeout: float,
        heartbeats: Heartbeats | None,
        on_stall: Callable[[str], None] | None = None,
        size: int = 1,
    ) -> None:
        self.timeout = timeout
        self._tick = min(max(timeout / TICKS, 0.05), LONGEST_TICK)
        self._on_stall = on_stall or exit_with
        self._progress = Progress(0, 0, "starting")
        self._slow = True
        self._notes = 0
        self._longest = 0.0
        self._steps = 0
        self._began = time.monotonic()
        self._over = threading.Event()
        self._others: RollCall | None = None
        if heartbeats is not None:
            self._others = RollCall(heartbeats, size=size, progress=lambda: self._progress, interval=self._tick)

    def note(self, iteration: int, stage: int, doing: str, *, slow: bool = False) -> None:
        """From now on the main thread is `doing` this, after `iteration` finished steps. slow: it may take SLOW_FACTOR times as long."""
        self._slow = slow or self._steps == 0
        self._progress = Progress(iteration, stage, doing)
        self._notes += 1  # a clock set back here could be overwritten by the thread that reads it
        if stage == 0:
            self._began = time.monotonic()

    def alive(self) -> None:
        """What the main thread does began just now, as far as its time is concerned."""
        self._notes += 1

    def finish_step(self) -> None:
        """The step begun with the last note of stage 0 is done. The first is often slow, and counts as long as there is no other."""
        seconds = time.monotonic() - self._began
        self._longest = seconds if self._steps < 2 else max(self._longest, seconds)
        self._steps += 1

    @property
    def allowance(self) -> float:
        """Seconds that what is being done may take."""
        return max(self.timeout * (SLOW_FACTOR if self._slow else 1.0), LONGEST_FACTOR * self._longest)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch while the block runs; with a timeout of 0 nothing is watched."""
        if not self.timeout:
            yield
            return
        thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        thread.start()
        if self._others is not None:
            self._others.begin()
        try:
            yield
        finally:
            self._over.set()
            if self._others is not None:
                self._others.end()
            thread.join(timeout=5)

    def _watch(self) -> None:
        looked, note, waited = time.monotonic(), self._notes, 0.0
        while not self._over.wait(self._tick):
            now = time.monotonic()
            # Time in which this process did not run (stopped and continued with all the others) is nobody's fault.
            waited += min(now - looked, 3 * self._tick)
            looked = now
            if self._notes != note:
                note, waited = self._notes, 0.0
            if waited > self.allowance or (self._others is not None and self._others.alarm):
                self._give_up(waited)
                return

    def _give_up(self, waited: float) -> None:
        """Tell where this rank is, find out who holds the run up, and end it."""
        reason = f"this rank has been {self._progress.doing} for {waited:.0f} s"
        dump_stacks(
            f"rank {os.environ.get('RANK', '0')} has been {self._progress.doing} for {waited:.0f} s; its threads are in:"
        )
        found = self._others.ask() if self._others is not None else None
        if not self._over.is_set():
            self._on_stall(stall_message(found or reason, self.timeout))
