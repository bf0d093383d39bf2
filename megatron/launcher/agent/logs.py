"""Where the output of a rank goes: into a file of its own, and for one rank of the job to the console as well.

The other ranks write into their files directly. What the console shows passes through a thread of the agent, which never blocks the rank for
longer than the file takes: a console that has gone is left out.
"""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from megatron.errors import LaunchError

PIECE = 1 << 16
LINES_KEPT = 10
"""Lines of a rank's output that are shown when it ended without saying why."""
LINE_KEPT = 500
"""Characters of such a line."""
PATIENCE = 2.0
"""Seconds for the last output to be copied; a process that a rank left behind may hold the pipe for longer."""


class RankLog:
    """The file of one rank, and what its process gets as its two outputs.

    outputs: file descriptors for the standard output and error of the rank; `started` closes them here.
    """

    def __init__(self, directory: Path, rank: int, *, on_console: bool, title: str) -> None:
        self.path = directory / f"rank_{rank}.log"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise LaunchError(
                f'"log_dir" is "{directory}", where {self.path.name} cannot be written on {os.uname().nodename} ({error.strerror}): choose a '
                "directory that every machine of the job can write"
            ) from None
        self._begin = os.fstat(self._file).st_size
        _write(self._file, f"--- {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, {title}\n".encode())
        self._copiers: list[threading.Thread] = []
        self._finished = False
        self.outputs = (self._copied_to(1), self._copied_to(2)) if on_console else (self._file, self._file)

    def started(self) -> None:
        """The process has its outputs now."""
        for output in {*self.outputs} - {self._file}:
            os.close(output)

    def finish(self) -> None:
        """The process has ended: what it printed last is in the file when this returns. A second time does nothing."""
        deadline = time.monotonic() + PATIENCE
        while self._copiers:
            self._copiers.pop().join(max(0.0, deadline - time.monotonic()))
        if not self._finished:
            self._finished = True
            os.close(self._file)

    def last_lines(self) -> str:
        """What the rank printed last, since this log was opened."""
        try:
            with self.path.open("rb") as file:
                file.seek(max(self._begin, file.seek(0, os.SEEK_END) - PIECE))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        kept = [line for line in lines if line.strip() and not line.startswith("--- ")][-LINES_KEPT:]
        return "\n".join(line if len(line) <= LINE_KEPT else f"{line[:LINE_KEPT]} ..." for line in kept)

    def _copied_to(self, console: int) -> int:
        """A descriptor to write to; what is written there is copied to the file and to the console."""
        reading, writing = os.pipe()
        copier = threading.Thread(
            target=_copy, args=(reading, os.dup(self._file), console), name="rank log", daemon=True
        )
        copier.start()
        self._copiers.append(copier)
        return writing


def _copy(source: int, file: int, console: int) -> None:
    """To the console at once, to the file by lines: a line of the other output must not come between the parts of one.

    Both descriptors are this thread's own, because a process that the rank left behind may go on writing long after the log was finished.
    """
    listening, begun = True, b""
    while piece := os.read(source, PIECE):
        listening = listening and _write(console, piece)
        lines, newline, begun = (begun + piece).rpartition(b"\n")
        _write(file, lines + newline)
        if len(begun) > PIECE:
            _write(file, begun)
            begun = b""
    _write(file, begun)
    os.close(source)
    os.close(file)


def _write(target: int, content: bytes) -> bool:
    """Write all of it; False when the target takes nothing any more."""
    while content:
        try:
            content = content[os.write(target, content) :]
        except OSError:
            return False
    return True
