"""All files of a corpus: a few at a time, after a look at their size and the free disk; what has arrived always stays."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import filelock
import httpx2
from rich.console import Console

from megatron.data.corpora.download.errors import Refused, Stopped
from megatron.data.corpora.download.here import forget, is_whole, whole_files
from megatron.data.corpora.download.hub import hub_url
from megatron.data.corpora.download.progress import DownloadProgress, readable_size
from megatron.data.corpora.download.record import Record, RemoteFile, arrived, partial_path
from megatron.data.corpora.download.single import FileDownload, Patience
from megatron.data.corpora.download.size import check_disk, total_size
from megatron.errors import DataError

USER_AGENT = "deepy-neox prepare_data"


@dataclass(frozen=True)
class DownloadSettings:
    """How to download. connections: files at a time; timeout: seconds without a byte; force: what is here does not count."""

    connections: int = 4
    timeout: float = 30.0
    force: bool = False
    patience: Patience = field(default_factory=Patience)
    console: Console = field(default_factory=lambda: Console(quiet=True))

    def client(self) -> httpx2.Client:
        """An HTTP client that follows redirects and goes through the proxies the environment names."""
        return httpx2.Client(
            follow_redirects=True,
            timeout=httpx2.Timeout(self.timeout, pool=None),
            headers={"User-Agent": USER_AGENT},
        )


def download(files: Sequence[RemoteFile], directory: Path, settings: DownloadSettings) -> list[Record]:
    """Bring `files` into `directory` and return the record of each, with its SHA-256.

    Files that are here and whole are not asked for again, nor is the network. Raises DataError with one sentence for each reason
    when a file cannot be had, when the disk is too small, or when it is full.
    """
    files = [replace(file, urls=tuple(hub_url(url) for url in file.urls)) for file in files]
    if not settings.force and (records := whole_files(files, directory)) is not None:
        return records
    directory.mkdir(parents=True, exist_ok=True)
    with _alone(directory, settings.console):
        if settings.force:
            forget(files, directory)
        missing = [file for file in files if not is_whole(file, directory)]
        if missing:
            _download_missing(missing, directory, settings)
    records = whole_files(files, directory)
    assert records is not None, "every file was brought here"
    return records


@contextlib.contextmanager
def _alone(directory: Path, console: Console) -> Iterator[None]:
    """The right to download into a directory, had by one process at a time; the system gives it back when a process dies."""
    lock = filelock.FileLock(directory / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        console.print(f"waiting for another process that downloads into {directory}", highlight=False, markup=False)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _download_missing(files: list[RemoteFile], directory: Path, settings: DownloadSettings) -> None:
    with settings.client() as client:
        here = sum(arrived(partial_path(directory / file.name)) for file in files)
        total = total_size(client, files)
        check_disk(directory, needed=(total or 0) - here)
        progress = DownloadProgress(settings.console, files=len(files), total=total, here=here)
        stop = threading.Event()

        def bring(file: RemoteFile) -> None:
            FileDownload(
                client,
                file,
                directory / file.name,
                patience=settings.patience,
                stop=stop,
                on_bytes=progress.add_bytes,
                on_wait=progress.say,
            ).run()
            progress.add_file()

        try:
            with progress:
                problems = _in_threads(bring, files, settings.connections, stop)
        except BaseException:
            kept = sum(arrived(directory / file.name) for file in files)
            progress.say(f"{readable_size(kept)} are kept in {directory}: the same command continues")
            raise
    if problems:
        raise DataError("\n".join(problems))


def _in_threads(
    bring: Callable[[RemoteFile], None], files: list[RemoteFile], connections: int, stop: threading.Event
) -> list[str]:
    """Call `bring` for every file, `connections` at a time; the first failure stops all. Returns what went wrong."""
    waiting: queue.SimpleQueue[RemoteFile] = queue.SimpleQueue()
    problems = list[str]()
    errors = list[BaseException]()
    for file in files:
        waiting.put(file)

    def work() -> None:
        try:
            while not stop.is_set():
                bring(waiting.get_nowait())
        except (queue.Empty, Stopped):
            return
        except Refused as refusal:
            problems.append(str(refusal))
        except OSError as error:
            problems.append(f"{error.filename or 'the download'} cannot be written: {error.strerror or error}.")
        except BaseException as error:
            errors.append(error)
        stop.set()

    # Daemons, so that Ctrl-C need not wait for a server that is silent; what they wrote is in the file already.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(max(1, min(connections, len(files))))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)
    except BaseException:
        stop.set()
        for thread in threads:
            thread.join(1.0)
        raise
    if errors:
        raise errors[0]
    return problems
