"""How far encoding has come: a live bar on a terminal, a line now and then anywhere else, nothing when nobody looks."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from megatron.data.encoding.worker import Counts

LINE_SECONDS = 10.0


class EncodeProgress(AbstractContextManager["EncodeProgress"]):
    """Counts what has been encoded and shows nothing. A context manager: the clock starts when it is entered.

    total: of the whole input, in the unit of `Counts.consumed`, or in documents when `total_documents` is given; None when unknown.
    log_interval: documents between two updates, at least.
    """

    def __init__(
        self, *, total: int | None = None, total_documents: int | None = None, log_interval: int = 100
    ) -> None:
        self.counts = Counts()
        self.total = total if total_documents is None else total_documents
        self._by_documents = total_documents is not None
        self._log_interval = log_interval
        self._next_document = 0
        self._earlier = Counts()
        self._started = time.monotonic()

    def __enter__(self) -> EncodeProgress:
        self._started = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def advance(self, counts: Counts) -> None:
        """So much more has been encoded."""
        self.counts += counts
        if self.counts.documents >= self._next_document and self.due():
            self.show()
            self._next_document = self.counts.documents + self._log_interval

    def skip_ahead(self, counts: Counts) -> None:
        """So much more had been encoded by an earlier run; it does not count as this one's speed."""
        self._earlier += counts
        self.advance(counts)

    def due(self) -> bool:
        """Whether enough time has passed for another update."""
        return True

    def show(self) -> None:
        """Tell how far it is."""

    @property
    def done(self) -> int:
        """How much of `total`."""
        counts = self.counts
        return counts.documents + counts.skipped + counts.bad if self._by_documents else counts.consumed

    @property
    def text_bytes(self) -> int:
        """Bytes of the texts, in UTF-8."""
        return self.counts.text_bytes

    @property
    def seconds(self) -> float:
        """Since the start; never 0."""
        return max(time.monotonic() - self._started, 1e-9)

    def rates(self) -> str:
        """`12,345 documents  678 docs/s  9.1 MB/s`; the bytes are those of the text."""
        documents = self.counts.documents - self._earlier.documents
        text_bytes = self.counts.text_bytes - self._earlier.text_bytes
        speed = f"{documents / self.seconds:,.0f} docs/s  {text_bytes / 1e6 / self.seconds:.1f} MB/s"
        return f"{self.counts.documents:,} documents  {speed}"


class LineProgress(EncodeProgress):
    """A line after at least `log_interval` more documents and ten more seconds, and one at the end: for log files and pipes."""

    def __init__(
        self, console: Console, *, total: int | None, total_documents: int | None = None, log_interval: int = 100
    ) -> None:
        super().__init__(total=total, total_documents=total_documents, log_interval=log_interval)
        self._console = console
        self._next_second = LINE_SECONDS

    def due(self) -> bool:
        return self.seconds >= self._next_second

    def show(self) -> None:
        percent = f"{min(100.0 * self.done / self.total, 100.0):.0f} %  " if self.total else ""
        self._console.print(f"{percent}{self.rates()}", highlight=False, markup=False)
        self._next_second = self.seconds + LINE_SECONDS

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.show()


class BarProgress(EncodeProgress):
    """A bar with the share of the input done, the speed and the time left."""

    def __init__(
        self, console: Console, *, total: int | None, total_documents: int | None = None, log_interval: int = 100
    ) -> None:
        super().__init__(total=total, total_documents=total_documents, log_interval=log_interval)
        self._bar = Progress(
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task("", total=self.total)

    def __enter__(self) -> EncodeProgress:
        self._bar.start()
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.show()
        self._bar.stop()

    def show(self) -> None:
        self._bar.update(self._task, completed=self.done, description=self.rates())


def build_progress(
    console: Console, *, total: int | None, total_documents: int | None = None, log_interval: int = 100
) -> EncodeProgress:
    """The progress for `console`; see EncodeProgress for the rest."""
    kind = BarProgress if console.is_terminal else LineProgress
    return kind(console, total=total, total_documents=total_documents, log_interval=log_interval)
