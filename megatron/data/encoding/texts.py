"""From texts in memory to an indexed dataset: documents -> token ids (+ end of document) -> `PREFIX_KEY_document.bin` and `.idx`.

This process gives out and writes, the workers tokenise. Chunks of documents go out and come back in order, a few for each worker at
a time, so the output is the same to the byte for any number of workers and memory does not grow with the input. Files are encoded by
files.py, without moving text or tokens between processes.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from pathlib import Path

import numpy as np

from megatron.data.documents import TextChunk, chunk_texts
from megatron.data.encoding.progress import EncodeProgress
from megatron.data.encoding.worker import (
    EncodedBatch,
    Encoder,
    EncodeRecipe,
    encode_chunk,
    engine_file,
    start_worker,
    start_workers,
)
from megatron.data.indexed_dataset import IndexedDatasetWriter, origins_path
from megatron.data.origins import write_origins
from megatron.errors import DataError

CHUNKS_IN_FLIGHT = 4  # for each worker: enough that none waits while the writer is busy
WORKER_DIED = "a worker process died without a message, usually because memory ran out: run again with fewer workers."


@dataclass(frozen=True)
class EncodedDataset:
    """What was written for one key: the files are `prefix` + `.bin` and `.idx`."""

    key: str
    prefix: Path
    documents: int
    tokens: int


def encode_texts(
    texts: Iterable[str],
    recipe: EncodeRecipe,
    *,
    origin: str,
    output_prefix: Path,
    workers: int = 1,
    progress: EncodeProgress | None = None,
) -> EncodedDataset:
    """Encode documents from memory into `{output_prefix}_{key}_document`, key being the recipe's only one.

    origin: what to call the texts in messages, and in the note of where documents came from (see origins.py). Documents without tokens
    are skipped. Raises DataError for the first text that is not one, and MissingRequirement for a package that the recipe needs; nothing
    is written then.
    """
    check_workers(workers)
    (key,) = recipe.keys
    encoder, progress = Encoder(recipe), progress or EncodeProgress()
    prefix = dataset_prefix_of(output_prefix, key)
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(IndexedDatasetWriter(prefix, dtype=encoder.dtype))
        chunks = _encode_chunks(chunk_texts(texts, origin=origin), encoder, workers)
        encoded = stack.enter_context(contextlib.closing(chunks))
        stack.enter_context(progress)
        for batch in encoded:
            _write(batch, writer)
            counts = batch.counts
            progress.advance(replace(counts, consumed=counts.documents + counts.skipped))
        check_any(progress.counts.documents, progress.counts.skipped)
    write_origins(origins_path(prefix), [(origin, writer.documents)], tokens=writer.tokens)
    return EncodedDataset(key, prefix, writer.documents, writer.tokens)


def dataset_prefix_of(output_prefix: Path, key: str) -> Path:
    """The path that the files of one key begin with. Raises DataError for a key that no file can be named by."""
    if "/" in key:
        raise DataError(
            f'--jsonl-keys has "{key}", but files are named by keys and cannot have a "/": rename the key in the input.'
        )
    return output_prefix.with_name(f"{output_prefix.name}_{key}_document")


def check_workers(workers: int) -> None:
    """Raise DataError when there are none."""
    if workers < 1:
        raise DataError(f"{workers} workers cannot do anything: give at least 1.")


def check_any(documents: int, skipped: int) -> None:
    """Raise DataError when no document has tokens."""
    if documents == 0:
        raise DataError(f"the input has no documents with tokens ({skipped} empty ones): nothing was written.")


def _write(batch: EncodedBatch, writer: IndexedDatasetWriter) -> None:
    for begin, end in pairwise(np.concatenate([[0], np.cumsum(batch.sizes[0])]).tolist()):
        writer.add_document(batch.ids[0][begin:end])


def _encode_chunks(chunks: Iterator[TextChunk], encoder: Encoder, workers: int) -> Generator[EncodedBatch, None, None]:
    """The chunks, encoded, in order; in this process when there is one worker."""
    first = next(chunks, None)
    if first is None:
        return
    chunks, encoder.sample = chain([first], chunks), first.texts
    if workers == 1:
        yield from (encoder.encode(chunk.documents()) for chunk in chunks)
        return
    with engine_file() as engine:
        # Started afresh rather than forked: a forked process inherits the locks of this one's threads, held or not.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, context, initializer=start_worker, initargs=(encoder.recipe, engine))
        try:
            start_workers(pool, workers, encoder, engine)
            yield from _in_order(chunks, pool, in_flight=CHUNKS_IN_FLIGHT * workers)
        except BrokenProcessPool:
            raise DataError(WORKER_DIED) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _in_order(chunks: Iterator[TextChunk], pool: ProcessPoolExecutor, *, in_flight: int) -> Iterator[EncodedBatch]:
    pending: deque[Future[EncodedBatch]] = deque()
    for chunk in chunks:
        pending.append(pool.submit(encode_chunk, chunk))
        if len(pending) >= in_flight:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
