"""From texts to token ids: the part of encoding that runs in worker processes.

Kept apart from the rest so that a worker starts quickly: it imports neither the writer of datasets nor the progress display.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron.data.documents import TextChunk
from megatron.data.indexed_dataset import token_dtype
from megatron.data.inputs.pieces import Piece, sample_texts
from megatron.data.inputs.records import Fields
from megatron.errors import MissingRequirement
from megatron.tokenizer.base import TokenizerSettings
from megatron.tokenizer.build import build_tokenizer
from megatron.tokenizer.fast.choice import ENGINES, build_batch_encoder, build_from
from megatron.tokenizer.fast.encoder import BatchEncoder, Blueprint


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

    def build_encoder(self) -> Encoder:
        """The encoder that applies this recipe; a recipe for something else than texts has another one."""
        return Encoder(self)


@dataclass(frozen=True)
class Output:
    """One of the datasets that are written side by side: `PREFIX_NAME_document`."""

    name: str
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class Counts:
    """How much has been encoded. consumed: bytes on disk for files, documents for texts in memory.

    unmasked, untrained: of the labels written beside documents, those that mask nothing where something was to be masked, and those
    that leave nothing to train on.
    """

    documents: int = 0
    skipped: int = 0
    bad: int = 0
    text_bytes: int = 0
    consumed: int = 0
    unmasked: int = 0
    untrained: int = 0

    def __add__(self, other: Counts) -> Counts:
        mine, theirs = vars(self), vars(other)
        return Counts(**{name: mine[name] + theirs[name] for name in mine})


@dataclass(frozen=True)
class EncodedBatch:
    """Some documents: per output the ids of all of them, one after the other, and the length of each (int32).

    kept: which of the documents given these are, as some may have no tokens.
    """

    ids: tuple[NDArray[Any], ...]
    sizes: tuple[NDArray[np.int32], ...]
    counts: Counts
    kept: Sequence[int]


class Encoder:
    """Applies a recipe. Raises MissingRequirement or DataError at once when the recipe cannot be followed.

    sample: some of the texts to come, by which the engine is chosen; it never changes the ids.
    """

    def __init__(self, recipe: EncodeRecipe, *, sample: Sequence[str] = ()) -> None:
        self.recipe = recipe
        self.sample = sample
        self.tokenizer = build_tokenizer(recipe.tokenizer)
        self.dtype = token_dtype(self.tokenizer.vocab_size)
        self.fields = Fields(recipe.keys)
        self.outputs = tuple(Output(key, self.dtype) for key in recipe.keys)
        self._end = np.array([self.tokenizer.eod] if recipe.append_eod else [], self.dtype)
        self._fix = _load_ftfy() if recipe.fix_text else None

    @cached_property
    def engine(self) -> BatchEncoder:
        """What does the work; built when it is first needed."""
        return build_batch_encoder(self.tokenizer, sample=self.sample, engines=self.recipe.engines)

    def take_sample(self, pieces: Sequence[Piece]) -> None:
        """Take `sample` from the input."""
        self.sample = sample_texts(pieces, self.fields)

    def options(self) -> dict[str, Any]:
        """What the output depends on besides the fields of an EncodeRecipe and the tokenizer, by the name a user knows it by."""
        return {}

    def choose_engine(self) -> Blueprint | None:
        """Choose and prove `engine`, even if nothing is encoded here: what `take_engine` builds it from in other processes."""
        return self.engine.blueprint

    def take_engine(self, blueprint: Blueprint | None) -> None:
        """Build the `engine` that another process has chosen for the same recipe."""
        self.engine = build_from(blueprint, self.tokenizer)

    def encode(self, documents: Sequence[tuple[Any, ...]]) -> EncodedBatch:
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
            kept=kept,
        )

    def _encode_texts(self, texts: list[str]) -> list[NDArray[Any]]:
        return self.engine.encode_batch(texts if self._fix is None else [self._fix(text) for text in texts])

    def _joined(self, ids: list[NDArray[Any]]) -> NDArray[Any]:
        """All ids, each document's followed by the end-of-document token if that is asked for."""
        parts = [part for document in ids for part in (document, self._end)] if len(self._end) else ids
        return np.concatenate(parts, dtype=self.dtype, casting="unsafe") if parts else np.empty(0, self.dtype)


@contextlib.contextmanager
def engine_file() -> Iterator[Path]:
    """A temporary file for `start_workers` to write and workers to read.

    What workers are given at their start goes through a pipe, and one that dies before it has read more than the pipe holds would block
    this process for ever.
    """
    with tempfile.TemporaryDirectory(prefix="deepy-neox-engine-") as directory:
        yield Path(directory, "blueprint.pickle")


def start_workers(pool: ProcessPoolExecutor, workers: int, encoder: Encoder, engine: Path) -> None:
    """Start the processes of a pool whose initializer is `start_worker`, and choose the engine for all of them meanwhile.

    It has to be done before any work is submitted. engine: see `engine_file`.
    """
    for _ in range(workers):
        pool.submit(os.getpid)  # each submission starts a process as long as none is idle
    engine.write_bytes(pickle.dumps(encoder.choose_engine()))


def start_worker(recipe: EncodeRecipe, engine: Path) -> None:
    """Initialise a worker process: its encoder, one thread, and an end with its parent's. engine: see `engine_file`."""
    global _encoder, _engine
    # Ctrl-C reaches the whole process group; the parent ends the workers, and only it has something to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    _encoder, _engine = recipe.build_encoder(), engine


def worker_encoder() -> Encoder:
    """The encoder of this worker, with the engine that was chosen for all of them."""
    global _engine
    assert _encoder is not None, "start_worker is the pool's initializer"
    if _engine is not None:
        _encoder.take_engine(pickle.loads(_engine.read_bytes()))
        _engine = None
    return _encoder


def encode_chunk(chunk: TextChunk) -> EncodedBatch:
    """`Encoder.encode` of a chunk of texts from memory, with this worker's encoder."""
    return worker_encoder().encode(chunk.documents())


_encoder: Encoder | None = None
_engine: Path | None = None  # until it is read


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
