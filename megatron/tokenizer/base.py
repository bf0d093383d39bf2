"""What the rest of the framework may assume of a tokenizer, and which files one is built from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class TokenizerArguments(Protocol):
    """The configuration keys a tokenizer is built from; a NeoXArgs has them."""

    @property
    def tokenizer_type(self) -> str:
        """A name of `megatron.components.TOKENIZERS`."""
        ...

    @property
    def vocab_file(self) -> str | None:
        """The vocabulary: a file, or a directory for the types that allow it."""
        ...

    @property
    def merge_file(self) -> str | None:
        """The merges, for the types that keep them in a file of their own."""
        ...

    @property
    def eod_token(self) -> str | None:
        """The token that ends a document, where the vocabulary does not make it plain."""
        ...


@dataclass(frozen=True)
class TokenizerSettings:
    """The same keys without a configuration: small, immutable, and able to travel to a worker process."""

    tokenizer_type: str
    vocab_file: str | None = None
    merge_file: str | None = None
    eod_token: str | None = None


class Tokenizer(ABC):
    """Text to token ids and back.

    `detokenize(tokenize(text)) == text` holds for every tokenizer that does not normalise its input.
    """

    name: str
    """The name of this type in `megatron.components.TOKENIZERS`."""

    @classmethod
    @abstractmethod
    def from_arguments(cls, args: TokenizerArguments) -> Tokenizer:
        """The tokenizer described by `args`. Raises DataError when a file is not named, missing or malformed."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """One more than the largest id that `tokenize` can give. Padding for tensor parallelism is added at run time only."""

    @property
    @abstractmethod
    def eod(self) -> int:
        """The id of the token that ends a document."""

    @property
    def special_tokens(self) -> frozenset[int]:
        """Ids that say something about a text and are no part of it; the end of a document is always one."""
        return frozenset([self.eod])

    @abstractmethod
    def tokenize(self, text: str) -> list[int]:
        """The ids of `text`, without an end-of-document token."""

    def tokenize_plain(self, text: str) -> list[int]:
        """The ids of `text` alone: `tokenize` without the special tokens that some types put around every text."""
        return self.tokenize(text)

    def tokenize_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text: the same as `tokenize` of each, but faster where the engine has a batch call."""
        return [self.tokenize(text) for text in texts]

    @abstractmethod
    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of `ids`. Bytes that are not valid UTF-8 become U+FFFD; special tokens stay visible."""

    def continuation(self, before: Sequence[int], ids: Sequence[int]) -> str:
        """The text that `ids` add to the text of `before`, a space between them included: some types drop one that begins a text."""
        start, whole = self.detokenize(before), self.detokenize([*before, *ids])
        return whole[len(start) :] if whole.startswith(start) else self.detokenize(ids)

    @abstractmethod
    def fingerprint(self) -> str:
        """A hexadecimal digest that differs whenever two tokenizers may give different ids for some text."""
