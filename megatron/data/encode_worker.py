"""The part of encoding that runs in worker processes: a chunk of documents in, arrays of token ids out.

Kept apart from encode.py so that a worker starts quickly: it imports neither the writer nor the progress display.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron.data.documents import Chunk
from megatron.data.indexed_dataset import token_dtype
from megatron.errors import MissingRequirement
from megatron.tokenizer.base import TokenizerSettings
from megatron.tokenizer.build import build_tokenizer


@dataclass(frozen=True)
class EncodeRecipe:
    """How documents become tokens. `keys` are those of the JSON objects; each gives an output of its own."""

    tokenizer: TokenizerSettings
    keys: tuple[str, ...] = ("text",)
    append_eod: bool = False
    fix_text: bool = False
    """Repair wrongly decoded text with ftfy first."""


@dataclass(frozen=True)
class EncodedChunk:
    """The documents of one chunk: per key the ids of all of them, one after the other, and the length of each."""

    ids: tuple[NDArray[Any], ...]
    sizes: tuple[list[int], ...]
    documents: int
    skipped: int
    text_bytes: int
    consumed: int


class Encoder:
    """Applies a recipe to chunks. Raises MissingRequirement or DataError at once when the recipe cannot be followed."""

    def __init__(self, recipe: EncodeRecipe) -> None:
        self.recipe = recipe
        self.tokenizer = build_tokenizer(recipe.tokenizer)
        self.dtype = token_dtype(self.tokenizer.vocab_size)
        self._fix = _load_ftfy() if recipe.fix_text else None

    def encode(self, chunk: Chunk) -> EncodedChunk:
        """Tokenise all documents of a chunk.

        A document without tokens is left out; with several keys it is left out of all outputs when it has none under any one of
        them, so that document i of every output comes from the same line.
        """
        documents = [self._fixed(texts) for texts in chunk.documents(self.recipe.keys)]
        text_bytes = sum(len(text.encode("utf-8")) for texts in documents for text in texts)
        columns = [
            self.tokenizer.tokenize_batch([texts[k] for texts in documents]) for k in range(len(self.recipe.keys))
        ]
        kept = [i for i in range(len(documents)) if all(column[i] for column in columns)]
        end = [self.tokenizer.eod] if self.recipe.append_eod else []
        outputs = [[np.array(column[i] + end, dtype=self.dtype) for i in kept] for column in columns]
        return EncodedChunk(
            ids=tuple(np.concatenate([np.empty(0, self.dtype), *output]) for output in outputs),
            sizes=tuple([len(ids) for ids in output] for output in outputs),
            documents=len(kept),
            skipped=len(documents) - len(kept),
            text_bytes=text_bytes,
            consumed=chunk.consumed,
        )

    def _fixed(self, texts: tuple[str, ...]) -> tuple[str, ...]:
        return texts if self._fix is None else tuple(self._fix(text) for text in texts)


def start_worker(recipe: EncodeRecipe) -> None:
    """Initialise a worker process: its encoder, one thread, and an end with its parent's."""
    global _encoder
    # Ctrl-C reaches the whole process group; the parent ends the workers, and only it has something to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    _encoder = Encoder(recipe)


def encode_in_worker(chunk: Chunk) -> EncodedChunk:
    """`Encoder.encode` of this worker's encoder."""
    assert _encoder is not None, "start_worker is the pool's initializer"
    return _encoder.encode(chunk)


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
