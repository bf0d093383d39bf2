"""The ranks of one machine: starts them, watches them, passes signals on, ends them, and finds which failed first. No torch."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from megatron.launcher.children import end_children, kill_children, send_signal, start_child
from megatron.launcher.failure import ERROR_FILE_VARIABLE, Failure, first_cause, read_error_record
from megatron.stopping import STOPPED

FAILURE_PATIENCE = 5.0
"""Seconds that ranks may take to exit by themselves after another one failed; what they hold is of no use any more."""


GOOD_CODES = (0, STOPPED)
"""Exit codes of a rank that has nothing to complain of."""


class Ranks:
    """The processes of the ranks of this machine, started together and ended together.

    stop_signal: the signal with which the user asked to stop, or None; overdue: ranks had to be killed after that signal;
    abandoned: the user did not want to wait for them.
    """

    def __init__(self, *, grace_seconds: float) -> None:
        self.stop_signal: int | None = None
        self.overdue = False
        self.abandoned = False
        self.grace_seconds = grace_seconds
        self._deadline = float("inf")
        self._starting = False
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._ended_by_us: set[int] = set()
        self._errors = tempfile.TemporaryDirectory(prefix="neox_errors_", ignore_cleanup_errors=True)

    def start(self, argv: Sequence[str], environments: Mapping[int, Mapping[str, str]]) -> dict[int, int]:
        """Start one process per rank with its environment; returns process ids by rank. The first rank here keeps our stdin."""
        self._starting = True
        self._processes, self._ended_by_us = {}, set()
        for rank, environment in environments.items():
            self._error_file(rank).unlink(missing_ok=True)
            variables = {**environment, ERROR_FILE_VARIABLE: str(self._error_file(rank))}
            stdin = subprocess.DEVNULL if self._processes else None
            self._processes[rank] = start_child(argv, variables, death_signal=signal.SIGKILL, stdin=stdin)
        self._starting = False
        if self.stop_signal is not None:  # it came meanwhile
            self.forward(signal.SIGTERM)
        return {rank: process.pid for rank, process in self._processes.items()}

    def all_succeeded(self) -> bool:
        """Whether ranks were started and every one has come to its end, or has saved and stopped before it."""
        return bool(self._processes) and all(process.poll() in GOOD_CODES for process in self._processes.values())

    def any_stopped(self) -> bool:
        """Whether a rank has saved and stopped before the end of the run."""
        return any(process.poll() == STOPPED for process in self._processes.values())

    def any_failed(self) -> bool:
        """Whether a rank has exited otherwise. Ranks that were asked to stop and are past their time are killed first."""
        if time.monotonic() > self._deadline:
            self.overdue = True
            self.kill()
        return any(process.poll() not in (None, *GOOD_CODES) for process in self._processes.values())

    def stop(self, number: int) -> None:
        """Signal `number` asked us to stop: ask all ranks to save and exit, once; they have the grace period for it.

        They get SIGTERM whatever it was: a KeyboardInterrupt in the middle of importing torch is a traceback, or is lost. A signal
        handler may call this.
        """
        if self.stop_signal is not None:
            return
        self.stop_signal = number
        self._deadline = time.monotonic() + self.grace_seconds
        if not self._starting:
            self.forward(signal.SIGTERM)

    def forward(self, number: int) -> None:
        """Send a signal to every running rank."""
        for process in self._processes.values():
            if process.poll() is None:
                send_signal(process, number)

    def end(self) -> None:
        """End the ranks that still run and what failed ones left behind, in seconds."""
        self._note_running()
        if not self.all_succeeded():
            end_children(self._processes.values(), patience=FAILURE_PATIENCE)

    def kill(self) -> None:
        """End the ranks that still run, now."""
        self._note_running()
        kill_children(self._processes.values())

    def abandon(self) -> None:
        """The user does not want to wait until the ranks have saved. A signal handler may call it."""
        self.abandoned = True
        self.kill()

    def kill_if_running(self) -> None:
        """The last resort on the way out: nothing may be left, whatever went wrong before."""
        if any(process.poll() is None for process in self._processes.values()):
            self.kill()

    def close(self) -> None:
        """Forget the error files."""
        self._errors.cleanup()

    def cause(self) -> Failure | None:
        """The failure that ended the ranks; None when none failed. Ranks that only died of our own signals do not count."""
        failures = []
        for rank, process in self._processes.items():
            code = process.poll()
            record = read_error_record(self._error_file(rank))
            ours = rank in self._ended_by_us and code is not None and code < 0 and record is None
            if code not in (None, *GOOD_CODES) and not ours:
                failures.append(Failure(rank, int(code or 0), record))
        return first_cause(failures) if failures else None

    def _note_running(self) -> None:
        self._ended_by_us |= {rank for rank, process in self._processes.items() if process.poll() is None}

    def _error_file(self, rank: int) -> Path:
        return Path(self._errors.name) / f"rank_{rank}.json"


def rank_argv(script: str, arguments: Sequence[str]) -> list[str]:
    """The command of a rank. Unbuffered, so that what it prints appears at once also when the output is a file."""
    return [sys.executable, "-u", script, *arguments]
