"""How far downloads have come: a live bar on a terminal, a line now and then anywhere else. Told from several threads."""

from __future__ import annotations

import threading
import time
from contextlib import AbstractContextManager
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

LINE_SECONDS = 10.0


class DownloadProgress(AbstractContextManager["DownloadProgress"]):
    """Shows the bytes of `files` files; `total` is None when a server does not tell a size, `here` what is here already."""

    def __init__(self, console: Console, *, files: int, total: int | None, here: int) -> None:
        self._console = console
        self._files = files
        self._files_done = 0
        self._total = total
        self._bytes = self._first_bytes = here
        self._lock = threading.Lock()
        self._started = self._next_line = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(self._description(), total=total, completed=here)

    def __enter__(self) -> DownloadProgress:
        self._bar.start()
        self._started = time.monotonic()
        self._next_line = self._started + LINE_SECONDS
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()
        if not self._console.is_terminal and error is None:
            self._write()

    def add_bytes(self, count: int) -> None:
        """So many bytes more are here; fewer, when some had to be thrown away."""
        with self._lock:
            self._bytes += count
            if self._console.is_terminal:
                self._bar.update(self._task, completed=self._bytes)
            elif time.monotonic() >= self._next_line:
                self._next_line = time.monotonic() + LINE_SECONDS
                self._write()

    def add_file(self) -> None:
        """One file more is whole."""
        with self._lock:
            self._files_done += 1
            self._bar.update(self._task, description=self._description())

    def say(self, text: str) -> None:
        """A line of its own, such as why a file waits."""
        self._console.print(text, highlight=False, markup=False)

    def _description(self) -> str:
        return f"downloading {self._files_done} of {self._files} files" if self._files > 1 else "downloading"

    def _write(self) -> None:
        seconds = max(time.monotonic() - self._started, 1e-9)
        speed = (self._bytes - self._first_bytes) / 1e6 / seconds
        of_total = f" of {readable_size(self._total)}" if self._total else ""
        self.say(f"{self._description()}: {readable_size(self._bytes)}{of_total}, {speed:.1f} MB/s")


def readable_size(count: int) -> str:
    """`335 GB`, `36.4 MB`, `512 bytes`; in powers of 1000."""
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 1000 * size else f"{count / size:,.0f} {unit}"
    return f"{count} bytes"
