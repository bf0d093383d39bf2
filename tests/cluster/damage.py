"""What happens to jobs on clusters."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from tests.cluster.launches import SESSIONS, Launch
from tests.cluster.table import Seconds

Damage = Callable[[Launch], Callable[[], None]]
"""Does it, and returns what mends it."""


def kill_a_rank(job: Launch) -> Callable[[], None]:
    """End rank 1, as the kernel does when memory is short."""
    os.kill(job.rank(1).pid, signal.SIGKILL)
    return lambda: None


def lose_a_node(job: Launch) -> Callable[[], None]:
    """Pull the cable of h2. The result puts it back."""
    job.hosts.link("h2", "down")
    return lambda: job.hosts.link("h2", "up")


def end(job: Launch, damage: Damage) -> tuple[int, Seconds]:
    """Do the damage to a job; returns its exit status and the seconds until all had ended."""
    begin = time.monotonic()
    mend = damage(job)
    try:
        status = job.finish()
        returned = time.monotonic() - begin
        job.seconds_until_nothing_is_left(but=SESSIONS)
        seconds = Seconds(returned, time.monotonic() - begin)
    finally:
        mend()
    job.seconds_until_nothing_is_left()
    return status, seconds
