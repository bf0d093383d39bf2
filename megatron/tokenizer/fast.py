"""Batches of texts to ids, by the fastest engine that gives exactly the ids of the tokenizer.

A faster engine serves a tokenizer of the Hugging Face kind only where it is proven to be identical:

1. its file holds nothing but what the engine can do in the same way (`fast_file`, `fast_merges`, `fast_patterns`);
2. the package is of the version that was compared with `tokenizers`, character by character;
3. texts of the user's own give the same ids at the start;
4. documents that might differ are left to `tokenizers` itself, one by one: see `FastEncoder.is_safe`.
"""

from __future__ import annotations

import functools
import importlib
import multiprocessing
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from megatron.log import get_logger
from megatron.tokenizer.base import Tokenizer
from megatron.tokenizer.fast_characters import build_search
from megatron.tokenizer.fast_file import BytePairs, is_nfc, read_byte_pairs
from megatron.tokenizer.fast_merges import Unfit
from megatron.tokenizer.hf import HFTokenizer

ENGINES = {
    "gigatoken": "megatron.tokenizer.fast_gigatoken:GigatokenEngine",
    "tiktoken": "megatron.tokenizer.fast_tiktoken:TiktokenEngine",
}
"""The fastest first; the name is that of the package."""
PROVEN = {"tokenizers": "0.23.3", "gigatoken": "0.10.0", "tiktoken": "0.14.0"}
"""The versions that were compared, and are pinned in requirements/."""
SAMPLE_CHARACTERS = 1 << 18

logger = get_logger(__name__)


class Engine(Protocol):
    """A faster engine: built from a BytePairs, or Unfit is raised."""

    name: str
    unknown: tuple[tuple[int, int], ...]
    """Ranges of characters of which it knows less than `tokenizers`."""
    finds_added: bool
    """Whether it finds added tokens; otherwise it gets the texts between them."""

    def encode(self, text: str) -> NDArray[np.uint32]:
        """The ids of a text."""
        ...


class BatchEncoder(Protocol):
    """Texts to ids, exactly as the tokenizer it was built for."""

    engine: str
    """Who does the work: the name of a package, or of the tokenizer's type."""

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[Any]]:
        """The ids of each text: a one-dimensional array of integers of any width, not to be written to."""
        ...


def build_batch_encoder(
    tokenizer: Tokenizer, *, sample: Sequence[str] = (), engines: Iterable[str] = tuple(ENGINES)
) -> BatchEncoder:
    """The first of `engines` that is installed and proven to give the ids of `tokenizer`; the tokenizer itself when there is none.

    sample: texts of the user's, of which 262,144 characters or so, as many of each, are compared before an engine is trusted. That none
    serves, and why, is logged once, by the process that started the others.
    """
    if not isinstance(tokenizer, HFTokenizer):
        return TokenizerEncoder(tokenizer)
    reasons = []
    for name in engines:
        try:
            encoder = _build(name, tokenizer)
            _check_sample(encoder, tokenizer, sample)
        except Unfit as reason:
            reasons.append(str(reason))
            continue
        return encoder
    if reasons and multiprocessing.parent_process() is None:
        _tell("; ".join(reasons))
    return TokenizerEncoder(tokenizer)


class TokenizerEncoder:
    """The tokenizer itself."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.engine = tokenizer.name
        self._tokenizer = tokenizer

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[Any]]:
        return [np.array(ids, dtype=np.int64) for ids in self._tokenizer.tokenize_batch(texts)]


class FastEncoder:
    """An engine for the documents that it surely encodes alike, and the tokenizer for the others.

    left: how many documents were left to the tokenizer.
    """

    def __init__(self, engine: Engine, pairs: BytePairs, tokenizer: HFTokenizer) -> None:
        self.engine = engine.name
        self.left = 0
        self._engine = engine
        self._pairs = pairs
        self._tokenizer = tokenizer
        self._holds_unknown = build_search(engine.unknown, nfc=pairs.nfc)

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[Any]]:
        safe = [self.is_safe(text) for text in texts]
        others = [text for text, is_safe in zip(texts, safe, strict=True) if not is_safe]
        self.left += len(others)
        slow = iter(self._tokenizer.tokenize_batch(others) if others else [])
        return [
            self._fast(text) if is_safe else np.array(next(slow), dtype=np.uint32)
            for text, is_safe in zip(texts, safe, strict=True)
        ]

    def is_safe(self, text: str) -> bool:
        """Whether the engine surely gives the ids of `text`.

        It does unless the text holds an added token that reaches beyond its own characters, a character of which the engine may know
        less, or anything that the tokenizer would normalise.
        """
        awkward = self._pairs.added.awkward
        if awkward is not None and awkward.search(text):
            return False
        return text.isascii() or not (self._holds_unknown(text) or (self._pairs.nfc and not is_nfc(text)))

    def _fast(self, text: str) -> NDArray[Any]:
        before, after = self._pairs.before, self._pairs.after
        ids = self._engine.encode(text) if self._engine.finds_added else self._between_added(text)
        return np.concatenate((before, ids, after), dtype=np.uint32, casting="unsafe") if before or after else ids

    def _between_added(self, text: str) -> NDArray[Any]:
        """Added tokens are found here, and the engine sees the text between them: so does the tokenizer."""
        pieces = list(self._pairs.added.cut(text))
        if len(pieces) == 1 and isinstance(pieces[0], str):
            return self._engine.encode(pieces[0])
        parts = [
            self._engine.encode(piece) if isinstance(piece, str) else np.array((piece,), np.uint32) for piece in pieces
        ]
        return np.concatenate(parts, dtype=np.uint32) if parts else np.empty(0, np.uint32)


def _build(name: str, tokenizer: HFTokenizer) -> FastEncoder:
    for package in ("tokenizers", name):
        _check_version(package)
    pairs = read_byte_pairs(tokenizer.definition())
    module, _, kind = ENGINES[name].partition(":")
    try:
        engine: Engine = getattr(importlib.import_module(module), kind)(pairs)
    except ImportError as error:
        raise Unfit(f"{name} cannot be imported ({error})") from None
    return FastEncoder(engine, pairs, tokenizer)


def _check_version(package: str) -> None:
    try:
        installed = version(package)
    except PackageNotFoundError:
        raise Unfit(f"{package} is not installed") from None
    if installed != PROVEN[package]:
        raise Unfit(f"{package} is version {installed}, and {PROVEN[package]} is the one that was compared")


def _check_sample(encoder: FastEncoder, tokenizer: HFTokenizer, sample: Sequence[str]) -> None:
    """Raises Unfit when the ids of a text of the sample differ."""
    share = SAMPLE_CHARACTERS // max(1, len(sample)) + 1
    parts = [text[:share] for text in sample]
    if [ids.tolist() for ids in encoder.encode_batch(parts)] != tokenizer.tokenize_batch(parts):
        raise Unfit(f"{encoder.engine} gave other ids for a text of the input")


@functools.cache
def _tell(reasons: str) -> None:
    """Once for each text."""
    logger.warning(
        "tokenising with tokenizers itself, as no faster engine can give its ids: %s. Engines for tokenizers like those of GPT-2, "
        "GPT-NeoX, Llama 3 and Qwen are in requirements/requirements-fast-tokenizers.txt.",
        reasons,
    )
