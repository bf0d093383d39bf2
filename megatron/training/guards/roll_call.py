"""Beats and questions of one rank, in threads of their own: a store that does not answer any more must not keep the watchdog waiting.

The store lives in a process, of the launcher on the first machine or of rank 0, which may be stopped or lost itself.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from megatron.training.guards.heartbeats import Heartbeats, Progress
from megatron.training.guards.stalls import answering, describe_stall

SHORT_PAUSE = 0.1
"""Seconds between two looks at who has answered."""

LISTENING = 2.0
"""Seconds, at least, in which a rank that lives has to be heard after the alarm; all wait so long for each other before they exit."""

BEATS_HEARD = 4
"""Beats of a living rank, at least, in that time."""

NO_ANSWER = (
    "who holds the run up is not known, because the store of the ranks does not answer: the process that keeps it (rank 0, or the launcher "
    "on the first machine) was stopped, or its machine is gone"
)


class RollCall:
    """What a rank says of itself every `interval` seconds, from `begin` on, and learns from the others.

    progress: where this rank is.
    """

    def __init__(self, heartbeats: Heartbeats, *, size: int, progress: Callable[[], Progress], interval: float) -> None:
        self._heartbeats = heartbeats
        self._size = size
        self._progress = progress
        self._interval = interval
        self._alarmed = threading.Event()
        self._over = threading.Event()

    def begin(self) -> None:
        """Give signs of life from now on, until `end`."""
        threading.Thread(target=self._beat, name="heartbeats", daemon=True).start()

    def end(self) -> None:
        """The run is over; does not wait for the thread, which may wait for the store."""
        self._over.set()

    @property
    def alarm(self) -> bool:
        """Whether another rank was heard to raise the alarm."""
        return self._alarmed.is_set()

    def ask(self) -> str | None:
        """Raise the alarm, and say who holds the run up, within a few times the time for listening; None where the store has gone."""
        seconds = max(LISTENING, BEATS_HEARD * self._interval)
        answers: list[str | None] = []
        thread = threading.Thread(target=lambda: answers.append(self._ask(seconds)), name="roll call", daemon=True)
        thread.start()
        thread.join(timeout=3 * seconds)
        return answers[0] if answers else NO_ANSWER

    def _beat(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(RuntimeError):  # the store has gone; what this rank does is still watched
                self._heartbeats.beat(self._progress())
                if self._heartbeats.alarm:
                    self._alarmed.set()
            self._over.wait(self._interval)

    def _ask(self, seconds: float) -> str | None:
        with contextlib.suppress(RuntimeError):
            self._heartbeats.raise_alarm()
            before = self._heartbeats.read()
            time.sleep(seconds)
            now = self._heartbeats.read()
            self._heartbeats.leave()
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline and not self._heartbeats.left(answering(before, now)):
                time.sleep(SHORT_PAUSE)
            return describe_stall(before, now, size=self._size)
        return None
