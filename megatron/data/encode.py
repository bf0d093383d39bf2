"""From text to an indexed dataset: documents -> token ids (+ end of document) -> `PREFIX_KEY_document.bin` and `.idx`.

One process reads and writes, the workers parse and tokenise. Chunks of documents go out and come back in order, a few for each
worker at a time, so the output is the same to the byte for any number of workers and memory does not grow with the input.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

from megatron.data.documents import Chunk, check_inputs, chunk_texts, read_chunks
from megatron.data.encode_progress import EncodeProgress
from megatron.data.encode_worker import EncodedChunk, Encoder, EncodeRecipe, encode_in_worker, start_worker
from megatron.data.indexed_dataset import IndexedDatasetWriter
from megatron.errors import DataError

CHUNKS_IN_FLIGHT = 4  # for each worker: enough that none waits while the writer is busy


@dataclass(frozen=True)
class EncodedDataset:
    """What was written for one key: the files are `prefix` + `.bin` and `.idx`."""

    key: str
    prefix: Path
    documents: int
    tokens: int


def encode_jsonl(
    paths: Sequence[Path],
    recipe: EncodeRecipe,
    *,
    output_prefix: Path,
    workers: int = 1,
    progress: EncodeProgress | None = None,
) -> list[EncodedDataset]:
    """Encode files of JSON lines, in the order given: one dataset `{output_prefix}_{key}_document` for each of the recipe's keys.

    Documents without tokens are skipped. Raises DataError, with file and line, for the first bad line or file, and
    MissingRequirement for a package that the recipe or a file needs; nothing is written then.
    """
    check_inputs(paths)
    return _encode(read_chunks(paths), recipe, output_prefix, workers, progress or EncodeProgress())


def encode_texts(
    texts: Iterable[str],
    recipe: EncodeRecipe,
    *,
    origin: str,
    output_prefix: Path,
    workers: int = 1,
    progress: EncodeProgress | None = None,
) -> EncodedDataset:
    """Encode documents from memory into `{output_prefix}_{key}_document`, key being the recipe's only one; else as `encode_jsonl`.

    origin: what to call the texts in messages.
    """
    (dataset,) = _encode(
        chunk_texts(texts, origin=origin), recipe, output_prefix, workers, progress or EncodeProgress()
    )
    return dataset


def _encode(
    chunks: Iterator[Chunk], recipe: EncodeRecipe, output_prefix: Path, workers: int, progress: EncodeProgress
) -> list[EncodedDataset]:
    if workers < 1:
        raise DataError(f"{workers} workers cannot do anything: give at least 1.")
    encoder = Encoder(recipe)
    prefixes = [output_prefix.with_name(f"{output_prefix.name}_{key}_document") for key in recipe.keys]
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(IndexedDatasetWriter(prefix, dtype=encoder.dtype)) for prefix in prefixes]
        encoded = stack.enter_context(contextlib.closing(_encode_chunks(chunks, encoder, workers)))
        stack.enter_context(progress)
        for chunk in encoded:
            _write(chunk, writers)
            progress.advance(chunk)
        if progress.documents == 0:
            raise DataError(
                f"the input has no documents with tokens ({progress.skipped} empty ones): nothing was written."
            )
    outputs = zip(recipe.keys, prefixes, writers, strict=True)
    return [EncodedDataset(key, prefix, writer.documents, writer.tokens) for key, prefix, writer in outputs]


def _write(chunk: EncodedChunk, writers: list[IndexedDatasetWriter]) -> None:
    for writer, ids, sizes in zip(writers, chunk.ids, chunk.sizes, strict=True):
        for begin, end in pairwise(accumulate(sizes, initial=0)):
            writer.add_document(ids[begin:end])


def _encode_chunks(chunks: Iterator[Chunk], encoder: Encoder, workers: int) -> Generator[EncodedChunk, None, None]:
    """The chunks, encoded, in order; in this process when there is one worker."""
    if workers == 1:
        yield from map(encoder.encode, chunks)
        return
    # Started afresh rather than forked: a forked process inherits the locks of this one's threads, held or not.
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=start_worker, initargs=(encoder.recipe,)
    )
    try:
        yield from _in_order(chunks, pool, in_flight=CHUNKS_IN_FLIGHT * workers)
    except BrokenProcessPool:
        raise DataError(
            "a worker process died without a message, usually because memory ran out: run again with fewer workers."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(chunks: Iterator[Chunk], pool: ProcessPoolExecutor, *, in_flight: int) -> Iterator[EncodedChunk]:
    pending: deque[Future[EncodedChunk]] = deque()
    for chunk in chunks:
        pending.append(pool.submit(encode_in_worker, chunk))
        if len(pending) >= in_flight:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
