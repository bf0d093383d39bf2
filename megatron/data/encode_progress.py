"""How far encoding has come: a live bar on a terminal, a line now and then anywhere else, nothing when nobody looks."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from megatron.data.encode_worker import EncodedChunk

LINE_SECONDS = 10.0


class EncodeProgress(AbstractContextManager["EncodeProgress"]):
    """Counts what has been encoded and shows nothing. A context manager: the clock starts when it is entered."""

    def __init__(self) -> None:
        self.documents = 0
        self.skipped = 0
        self.text_bytes = 0
        self.consumed = 0
        self._started = time.monotonic()

    def __enter__(self) -> EncodeProgress:
        self._started = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def advance(self, chunk: EncodedChunk) -> None:
        """One more chunk has been written."""
        self.documents += chunk.documents
        self.skipped += chunk.skipped
        self.text_bytes += chunk.text_bytes
        self.consumed += chunk.consumed

    @property
    def seconds(self) -> float:
        """Since the start; never 0."""
        return max(time.monotonic() - self._started, 1e-9)

    def rates(self) -> str:
        """`12,345 documents  678 docs/s  9.1 MB/s`; the bytes are those of the text."""
        speed = f"{self.documents / self.seconds:,.0f} docs/s  {self.text_bytes / 1e6 / self.seconds:.1f} MB/s"
        return f"{self.documents:,} documents  {speed}"


class LineProgress(EncodeProgress):
    """A line after at least `log_interval` more documents and ten more seconds, and one at the end: for log files and pipes."""

    def __init__(self, console: Console, *, total: int | None, log_interval: int) -> None:
        super().__init__()
        self._console = console
        self._total = total
        self._log_interval = log_interval
        self._next_document = log_interval
        self._next_second = LINE_SECONDS

    def advance(self, chunk: EncodedChunk) -> None:
        super().advance(chunk)
        if self.documents >= self._next_document and self.seconds >= self._next_second:
            self._write()
            self._next_document = self.documents + self._log_interval
            self._next_second = self.seconds + LINE_SECONDS

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self._write()

    def _write(self) -> None:
        percent = f"{min(100.0 * self.consumed / self._total, 100.0):.0f} %  " if self._total else ""
        self._console.print(f"{percent}{self.rates()}", highlight=False, markup=False)


class BarProgress(EncodeProgress):
    """A bar with the share of the input done, the speed and the time left."""

    def __init__(self, console: Console, *, total: int | None, log_interval: int) -> None:
        super().__init__()
        self._log_interval = log_interval
        self._next_document = 0
        self._bar = Progress(
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> EncodeProgress:
        self._bar.start()
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._show()
        self._bar.stop()

    def advance(self, chunk: EncodedChunk) -> None:
        super().advance(chunk)
        if self.documents >= self._next_document:
            self._show()
            self._next_document = self.documents + self._log_interval

    def _show(self) -> None:
        self._bar.update(self._task, completed=self.consumed, description=self.rates())


def build_progress(console: Console, *, total: int | None, log_interval: int = 100) -> EncodeProgress:
    """The progress for `console`; `total` in the unit of `EncodedChunk.consumed`, None when unknown.

    log_interval: documents between two updates, at least.
    """
    kind = BarProgress if console.is_terminal else LineProgress
    return kind(console, total=total, log_interval=log_interval)
