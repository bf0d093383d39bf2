"""Programs that run beside each other while we wait, with what they print in files: for commands that start runs to look at their results."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn

from megatron.launcher.children import end_children, start_child
from megatron.launcher.process import POLL_SECONDS, with_paths

PATIENCE = 10.0
"""Seconds for a program to end after SIGTERM."""


@dataclass(frozen=True)
class Program:
    """What to start. environment: variables beyond ours; log: the file that holds what it prints."""

    argv: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)


def run_aside(programs: Sequence[Program]) -> list[int | None]:
    """Run all at once; their exit statuses. One that fails ends the others, which then have None.

    However this ends (an error, Ctrl-C, SIGTERM as SystemExit), none of them is left running.
    """
    children: list[subprocess.Popen[bytes]] = []
    with _sigterm_leaves():
        try:
            for program in programs:
                with program.log.open("wb") as output:
                    environment = with_paths(os.environ, program.environment)
                    children.append(
                        start_child(
                            program.argv,
                            environment,
                            death_signal=signal.SIGTERM,
                            stdin=subprocess.DEVNULL,
                            outputs=(output, output),
                        )
                    )
            while None in (codes := [child.poll() for child in children]) and not any(codes):
                time.sleep(POLL_SECONDS)
        finally:
            end_children([child for child in children if child.poll() is None], patience=PATIENCE)
    return codes


@contextlib.contextmanager
def _sigterm_leaves() -> Iterator[None]:
    """Within it, SIGTERM and SIGHUP raise SystemExit, so that what must be ended is ended."""

    def leave(number: int, _: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
