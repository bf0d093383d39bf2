"""Whether ranks that ended badly are started again (`max_restarts`), and what is said about it.

A crash may be the last of its kind: a machine that lost memory, a driver, a hang that the watchdog ended. A mistake comes again
(`NeoXError.may_pass`), and whoever asked the ranks to stop does not want them back.
"""

from __future__ import annotations

import sys

from megatron.launcher.failure import describe_failure
from megatron.launcher.ranks import Ranks


class Restarts:
    """Counts the restarts of a job. limit: how many there may be."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.done = 0

    def take(self, ranks: Ranks, *, world_size: int) -> bool:
        """Whether to start the ranks again, which have been ended after one of them failed; says so, with the cause, and counts it."""
        failure = ranks.cause()
        asked_to_stop = ranks.stop_signal is not None or ranks.abandoned or ranks.overdue
        if self.done == self.limit or asked_to_stop or failure is None or not failure.may_pass:
            return False
        self.done += 1
        cause = describe_failure(failure, world_size=world_size)
        separator = "\n" if "\n" in cause else "; "
        sys.stderr.write(f"{cause}{separator}restart {self.done} of {self.limit}\n")
        return True
