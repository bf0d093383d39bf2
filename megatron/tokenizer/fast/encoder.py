"""Texts to ids by an engine that was chosen, and by the tokenizer where the engine might differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from megatron.tokenizer.base import Tokenizer
from megatron.tokenizer.fast.added import AddedTokens
from megatron.tokenizer.fast.characters import build_search
from megatron.tokenizer.fast.file import BytePairs, is_nfc


class Engine(Protocol):
    """A faster engine."""

    name: str
    unknown: tuple[tuple[int, int], ...]
    """Ranges of characters of which it knows less than `tokenizers`."""
    finds_added: bool
    """Whether it finds added tokens; otherwise it gets the texts between them."""

    def __init__(self, blueprint: Blueprint) -> None: ...

    @staticmethod
    def tables_of(pairs: BytePairs) -> Any:
        """What it is built from. Raises Unfit when it cannot serve the encoding."""
        ...

    def encode(self, text: str) -> NDArray[np.uint32]:
        """The ids of a text."""
        ...


@dataclass(frozen=True)
class Blueprint:
    """What it takes to build a FastEncoder in another process, which need not prove anything again. It can be pickled.

    engine: its name; tables: what it is built from, nfc, added, before and after: what is done outside of it, as in BytePairs.
    """

    engine: str
    tables: Any
    nfc: bool
    added: AddedTokens
    before: tuple[int, ...]
    after: tuple[int, ...]


class BatchEncoder(Protocol):
    """Texts to ids, exactly as the tokenizer it was built for."""

    engine: str
    """Who does the work: the name of a package, or of the tokenizer's type."""

    @property
    def blueprint(self) -> Blueprint | None:
        """For `build_from`; None when the tokenizer does the work."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[Any]]:
        """The ids of each text: a one-dimensional array of integers of any width, not to be written to."""
        ...


class TokenizerEncoder:
    """The tokenizer itself."""

    blueprint = None

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.engine = tokenizer.name
        self._tokenizer = tokenizer

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[Any]]:
        return [np.array(ids, dtype=np.int64) for ids in self._tokenizer.tokenize_batch(texts)]


class FastEncoder:
    """An engine for the documents that it surely encodes alike, and the tokenizer for the others.

    left: how many documents were left to the tokenizer.
    """

    def __init__(self, engine: Engine, blueprint: Blueprint, tokenizer: Tokenizer) -> None:
        self.engine = engine.name
        self.blueprint = blueprint
        self.left = 0
        self._engine = engine
        self._tokenizer = tokenizer
        self._holds_unknown = build_search(engine.unknown, nfc=blueprint.nfc)

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
        awkward = self.blueprint.added.awkward
        if awkward is not None and awkward.search(text):
            return False
        return text.isascii() or not (self._holds_unknown(text) or (self.blueprint.nfc and not is_nfc(text)))

    def _fast(self, text: str) -> NDArray[Any]:
        before, after = self.blueprint.before, self.blueprint.after
        ids = self._engine.encode(text) if self._engine.finds_added else self._between_added(text)
        return np.concatenate((before, ids, after), dtype=np.uint32, casting="unsafe") if before or after else ids

    def _between_added(self, text: str) -> NDArray[Any]:
        """Added tokens are found here, and the engine sees the text between them: so does the tokenizer."""
        pieces = list(self.blueprint.added.cut(text))
        if len(pieces) == 1 and isinstance(pieces[0], str):
            return self._engine.encode(pieces[0])
        parts = [
            self._engine.encode(piece) if isinstance(piece, str) else np.array((piece,), np.uint32) for piece in pieces
        ]
        return np.concatenate(parts, dtype=np.uint32) if parts else np.empty(0, np.uint32)
