"""Work beside the training, in a thread of its own that exists only as long as the work: one piece of it at a time.

The threads are daemons: a process that ends by an error, or is told to end at once, does not wait for them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")

LOOK_SECONDS = 1.0
"""How often a waiting thread says that it is alive."""


class Background:
    """Runs one action at a time; what it raises is raised again by whoever waits for it. alive: called now and then while waiting."""

    def __init__(self, name: str, *, alive: Callable[[], None] = lambda: None) -> None:
        self._name = name
        self._alive = alive
        self._work: Future[None] | None = None

    def start(self, action: Callable[[], None]) -> None:
        """Run `action`; the one before must have been waited for."""
        assert self._work is None, "one at a time"
        self._work = in_background(action, name=self._name)

    @property
    def failed(self) -> bool:
        """Whether the newest action has ended with an error."""
        return self._work is not None and self._work.done() and self._work.exception() is not None

    def wait(self, *, seconds: float = float("inf")) -> None:
        """Wait until nothing runs any more, or for so long. Raises what the newest action has raised, each time."""
        while self._work is not None and seconds > 0:
            ended, _ = wait([self._work], timeout=min(LOOK_SECONDS, seconds))
            if ended:
                self._work.result()
                self._work = None
            else:
                seconds -= LOOK_SECONDS
                self._alive()


def in_background(action: Callable[[], T], *, name: str) -> Future[T]:
    """Start `action` in a thread of its own; what becomes of it."""
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(action())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return outcome
