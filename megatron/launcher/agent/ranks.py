"""The ranks of one machine: starts them, watches them, passes signals on, ends them, and finds which failed first. No torch."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from megatron.launcher.agent.logs import RankLog
from megatron.launcher.children import end_children, kill_children, send_signal, start_child
from megatron.launcher.failure import ERROR_FILE_VARIABLE, ErrorRecord, Failure, read_error_record
from megatron.stopping import STOPPED

FAILURE_PATIENCE = 5.0
"""Seconds that ranks may take to exit by themselves after another one failed; what they hold is of no use any more."""

LONGEST_WORD = 1000
"""Characters of an argument that are passed on a command line; longer ones are passed in a file."""

REPORT_VARIABLE = "NEOX_REPORT_FILE"
"""Environment variable with the name of a file that a rank may write for whoever started the job (`Outcome.report`)."""

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
        self._logs: Mapping[int, RankLog] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="neox_ranks_", ignore_cleanup_errors=True)

    def start(
        self,
        script: str,
        arguments: Sequence[str],
        environments: Mapping[int, Mapping[str, str]],
        *,
        logs: Mapping[int, RankLog] | None = None,
        held_back: Iterable[signal.Signals] = (),
    ) -> dict[int, int]:
        """Start one process per rank with its environment; returns process ids by rank. The first rank here keeps our stdin.

        logs: without them, ranks print where we do. held_back: signals that wait until a rank lets them come in.
        """
        argv = rank_argv(script, [self._short(word) for word in arguments])
        self._starting = True
        self._processes, self._ended_by_us, self._logs = {}, set(), logs or {}
        for rank, environment in environments.items():
            self._error_file(rank).unlink(missing_ok=True)
            variables = {
                **environment,
                ERROR_FILE_VARIABLE: str(self._error_file(rank)),
                REPORT_VARIABLE: str(self._report_file(rank)),
            }
            log = self._logs.get(rank)
            self._processes[rank] = start_child(
                argv,
                variables,
                death_signal=signal.SIGKILL,
                stdin=subprocess.DEVNULL if self._processes else None,
                outputs=log.outputs if log else (None, None),
                held_back=held_back,
            )
            if log:
                log.started()
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

    def end(self, *, patience: float = FAILURE_PATIENCE) -> None:
        """End the ranks that still run, by force after `patience` seconds, and what failed ones left behind."""
        self._note_running()
        if not self.all_succeeded():
            end_children(self._processes.values(), patience=patience)

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
        """Forget the files between us and the ranks."""
        self._folder.cleanup()

    def finish_logs(self) -> None:
        """What the ranks printed is in their files when this returns. They must have ended."""
        for log in self._logs.values():
            log.finish()

    def failures(self) -> list[Failure]:
        """The ranks that did not end well. Those that only died of our own signals do not count."""
        failures = []
        for rank, process in self._processes.items():
            code = process.poll()
            record = read_error_record(self._error_file(rank))
            ours = rank in self._ended_by_us and code is not None and code < 0 and record is None
            if code not in (None, *GOOD_CODES) and not ours:
                failures.append(Failure(rank, int(code or 0), record, last_words=self._last_words(rank, record)))
        return failures

    def report(self) -> str | None:
        """What a rank left in the file of REPORT_VARIABLE, the first one's if there are several."""
        files = [self._report_file(rank) for rank in self._processes]
        return next((file.read_text() for file in files if file.is_file()), None)

    def _last_words(self, rank: int, record: ErrorRecord | None) -> str:
        """What a rank printed last; where it told its reason, that is enough, and ranks without a file have shown everything."""
        return "" if record is not None or rank not in self._logs else self._logs[rank].last_lines()

    def _short(self, word: str) -> str:
        """The word itself, or `@FILE` with a file that has it: what the kernel takes for one word has a limit of 128 KiB."""
        if len(word) <= LONGEST_WORD:
            return word
        file = Path(self._folder.name) / f"word_{hashlib.sha256(word.encode()).hexdigest()[:16]}"
        file.write_text(word)
        return f"@{file}"

    def _report_file(self, rank: int) -> Path:
        return Path(self._folder.name) / f"report_{rank}"

    def _note_running(self) -> None:
        self._ended_by_us |= {rank for rank, process in self._processes.items() if process.poll() is None}

    def _error_file(self, rank: int) -> Path:
        return Path(self._folder.name) / f"rank_{rank}.json"


def rank_argv(script: str, arguments: Sequence[str]) -> list[str]:
    """The command of a rank. Unbuffered, so that what it prints appears at once also when the output is a file."""
    return [sys.executable, "-u", script, *arguments]
