"""Pieces to shards, by this process or by many. What crosses between processes is small: pieces, notes and counts."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import astuple
from functools import partial
from pathlib import Path

from megatron.data.encoding.progress import EncodeProgress
from megatron.data.encoding.shard import OnError, ShardNote, write_shard
from megatron.data.encoding.shard_worker import start_shard_worker, write_shard_in_worker
from megatron.data.encoding.texts import WORKER_DIED
from megatron.data.encoding.work import WorkDirectory
from megatron.data.encoding.worker import Counts, Encoder, start_workers
from megatron.data.inputs.pieces import Piece
from megatron.data.inputs.span import Bad
from megatron.errors import DataError

PIECES_IN_FLIGHT = 2  # for each worker
POLL_SECONDS = 0.2


def encode_pieces(
    pieces: Sequence[Piece],
    work: WorkDirectory,
    encoder: Encoder,
    *,
    workers: int,
    on_error: OnError,
    progress: EncodeProgress,
) -> Generator[ShardNote | Bad, None, None]:
    """Each piece's note, in order, or the bad document that ended it; pieces that were finished before are not encoded again.

    Raises DataError when a worker dies. Closing the generator ends the workers.
    """
    if workers == 1:
        for piece in pieces:
            note = work.note(piece.number)
            if note is not None:
                progress.skip_ahead(note.counts)
            yield note or write_shard(piece, encoder, work.directory, on_error=on_error, report=progress.advance)
        return
    workers = max(1, min(workers, len(pieces)))  # others would find nothing to do
    with _Pool(encoder, workers, work.directory, on_error, progress) as pool:
        yield from _in_order(pieces, work, pool, in_flight=PIECES_IN_FLIGHT * workers)


def _in_order(
    pieces: Sequence[Piece], work: WorkDirectory, pool: _Pool, *, in_flight: int
) -> Iterator[ShardNote | Bad]:
    pending: deque[ShardNote | Future[ShardNote | Bad]] = deque()
    for piece in pieces:
        note = work.note(piece.number)
        if note is not None:
            pool.progress.skip_ahead(note.counts)
        pending.append(note or pool.submit(piece))
        if len(pending) >= in_flight:
            yield pool.result(pending.popleft())
    while pending:
        yield pool.result(pending.popleft())


class _Pool(contextlib.AbstractContextManager["_Pool"]):
    """Workers that count what they do in an array they share with this process, whose last element tells them to stop."""

    def __init__(
        self, encoder: Encoder, workers: int, directory: Path, on_error: OnError, progress: EncodeProgress
    ) -> None:
        # Started afresh rather than forked: a forked process inherits the locks of this one's threads, held or not.
        context = multiprocessing.get_context("spawn")
        self.progress = progress
        self._shared = context.Array("q", len(astuple(Counts())) + 1)
        self._told = Counts()
        self._directory, self._on_error = directory, on_error
        # A file of the work, so that none is left elsewhere by a kill; a pipe would do no better (see `engine_file`).
        self._engine = engine = directory / "engine.partial"
        arguments = (encoder.recipe, engine, self._shared)
        self._executor = ProcessPoolExecutor(workers, context, initializer=start_shard_worker, initargs=arguments)
        self._start: Callable[[], None] | None = partial(start_workers, self._executor, workers, encoder, engine)

    def submit(self, piece: Piece) -> Future[ShardNote | Bad]:
        """Have a piece encoded."""
        with _told_of_dead_workers():
            if self._start is not None:
                self._start()
                self._start = None
            return self._executor.submit(write_shard_in_worker, piece, self._directory, self._on_error)

    def result(self, pending: ShardNote | Future[ShardNote | Bad]) -> ShardNote | Bad:
        """Wait for a piece, telling progress meanwhile."""
        if isinstance(pending, ShardNote):
            return pending
        while not wait([pending], timeout=POLL_SECONDS).done:
            self._tell()
        self._tell()
        with _told_of_dead_workers():
            return pending.result()

    def __exit__(self, *_: object) -> None:
        self._shared[-1] = 1
        self._executor.shutdown(cancel_futures=True)
        self._engine.unlink(missing_ok=True)

    def _tell(self) -> None:
        now = Counts(*self._shared[:-1])
        before, self._told = self._told, now
        self.progress.advance(Counts(*(a - b for a, b in zip(astuple(now), astuple(before), strict=True))))


@contextlib.contextmanager
def _told_of_dead_workers() -> Iterator[None]:
    try:
        yield
    except (BrokenProcessPool, OSError) as error:
        # A pool that breaks while it is given work may say so with an OSError; those of files are the caller's.
        if isinstance(error, OSError) and str(error) != "handle is closed":
            raise
        raise DataError(f"{WORKER_DIED} What was finished is kept for --resume.") from None
