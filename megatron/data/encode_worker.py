"""From texts to token ids: the part of encoding that runs in worker processes.

Kept apart from the rest so that a worker starts quickly: it imports neither the writer of datasets nor the progress display.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron.data.documents import TextChunk
from megatron.data.indexed_dataset import token_dtype
from megatron.errors import MissingRequirement
from megatron.tokenizer.base import TokenizerSettings
from megatron.tokenizer.build import build_tokenizer
from megatron.tokenizer.fast import ENGINES, BatchEncoder, build_batch_encoder


@dataclass(frozen=True)
class EncodeRecipe:
    """How documents become tokens. `keys` are those of the JSON objects; each gives an output of its own."""

    tokenizer: TokenizerSettings
    keys: tuple[str, ...] = ("text",)
    append_eod: bool = False
    fix_text: bool = False
    """Repair wrongly decoded text with ftfy first."""
    engines: tuple[str, ...] = tuple(ENGINES)
    """Faster engines that may do the work of the tokenizer; they never change the ids."""


@dataclass(frozen=True)
class Counts:
    """How much has been encoded. consumed: bytes on disk for files, documents for texts in memory."""

    documents: int = 0
    skipped: int = 0
    bad: int = 0
    text_bytes: int = 0
    consumed: int = 0

    def __add__(self, other: Counts) -> Counts:
        mine, theirs = vars(self), vars(other)
        return Counts(**{name: mine[name] + theirs[name] for name in mine})


@dataclass(frozen=True)
class EncodedBatch:
    """Some documents: per key the ids of all of them, one after the other, and the length of each (int32)."""

    ids: tuple[NDArray[Any], ...]
    sizes: tuple[NDArray[np.int32], ...]
    counts: Counts


class Encoder:
    """Applies a recipe. Raises MissingRequirement or DataError at once when the recipe cannot be followed.

    sample: some of the texts to come, by which the engine is chosen; it never changes the ids.
    """

    def __init__(self, recipe: EncodeRecipe, *, sample: Sequence[str] = ()) -> None:
        self.recipe = recipe
        self.sample = sample
        self.tokenizer = build_tokenizer(recipe.tokenizer)
        self.dtype = token_dtype(self.tokenizer.vocab_size)
        self._end = np.array([self.tokenizer.eod] if recipe.append_eod else [], self.dtype)
        self._fix = _load_ftfy() if recipe.fix_text else None

    @cached_property
    def engine(self) -> BatchEncoder:
        """What does the work; built when it is first needed."""
        return build_batch_encoder(self.tokenizer, sample=self.sample, engines=self.recipe.engines)

    def choose_engine(self) -> None:
        """Build `engine` here even if nothing is encoded here: only the process that started the workers says which one it is."""
        _ = self.engine

    def encode(self, documents: Sequence[tuple[str, ...]]) -> EncodedBatch:
        """Tokenise documents of one text a key.

        A document without tokens is left out; with several keys it is left out of all outputs when it has none under any one of
        them, so that document i of every output comes from the same record.
        """
        columns = [self._encode_texts([document[k] for document in documents]) for k in range(len(self.recipe.keys))]
        kept = [i for i in range(len(documents)) if all(len(column[i]) for column in columns)]
        return EncodedBatch(
            ids=tuple(self._joined([column[i] for i in kept]) for column in columns),
            sizes=tuple(np.array([len(column[i]) for i in kept], np.int32) + len(self._end) for column in columns),
            counts=Counts(
                documents=len(kept),
                skipped=len(documents) - len(kept),
                text_bytes=sum(len(text.encode("utf-8")) for document in documents for text in document),
            ),
        )

    def _encode_texts(self, texts: list[str]) -> list[NDArray[Any]]:
        return self.engine.encode_batch(texts if self._fix is None else [self._fix(text) for text in texts])

    def _joined(self, ids: list[NDArray[Any]]) -> NDArray[Any]:
        """All ids, each document's followed by the end-of-document token if that is asked for."""
        parts = [part for document in ids for part in (document, self._end)] if len(self._end) else ids
        return np.concatenate(parts, dtype=self.dtype, casting="unsafe") if parts else np.empty(0, self.dtype)


@contextlib.contextmanager
def sample_for_workers(sample: Sequence[str]) -> Iterator[Path]:
    """A temporary file with the texts of a sample, for workers to read.

    What they are given at their start goes through a pipe, and a worker that dies before it has read more than the pipe holds would
    block this process for ever.
    """
    with tempfile.TemporaryDirectory(prefix="deepy-neox-sample-") as directory:
        path = Path(directory, "texts.json")
        path.write_text(json.dumps(list(sample)))
        yield path


def start_worker(recipe: EncodeRecipe, sample: Path) -> None:
    """Initialise a worker process: its encoder, one thread, and an end with its parent's. sample: see `sample_for_workers`."""
    global _encoder
    # Ctrl-C reaches the whole process group; the parent ends the workers, and only it has something to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    _encoder = Encoder(recipe, sample=json.loads(sample.read_text()))


def worker_encoder() -> Encoder:
    """The encoder of this worker."""
    assert _encoder is not None, "start_worker is the pool's initializer"
    return _encoder


def encode_chunk(chunk: TextChunk) -> EncodedBatch:
    """`Encoder.encode` of a chunk of texts from memory, with this worker's encoder."""
    return worker_encoder().encode(chunk.documents())


_encoder: Encoder | None = None


def _end_with_parent() -> None:
    """Wait for the parent to be gone. A killed parent cannot say goodbye, and its pipes stay open in the other workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _load_ftfy() -> Callable[[str], str]:
    try:
        import ftfy  # type: ignore[import-not-found]  # optional
    except ModuleNotFoundError:
        raise MissingRequirement(
            '--ftfy needs the package "ftfy": pip install -r requirements/requirements-preprocessing.txt'
        ) from None
    fix: Callable[[str], str] = ftfy.fix_text
    return fix
