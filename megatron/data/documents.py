"""Documents for whoever wants texts alone: from files, or from memory in chunks small enough to send to another process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron.data.inputs.fingerprint import fingerprint
from megatron.data.inputs.formats import cut, read_span
from megatron.data.inputs.records import BadRecord, Fields, checked
from megatron.data.inputs.span import Bad, Meter
from megatron.errors import DataError

CHUNK_CHARACTERS = 1 << 18


@dataclass(frozen=True)
class TextChunk:
    """Consecutive documents of one text each; `first` counts from 1 in `origin`, which is a name for messages."""

    origin: str
    first: int
    texts: list[str]

    def documents(self) -> list[tuple[str]]:
        """The documents. Raises DataError, which says where, for a text that is not one."""
        for number, text in enumerate(self.texts, start=self.first):
            try:
                checked(text)
            except BadRecord as error:
                raise DataError(f"document {number} of {self.origin} {error}") from None
        return [(text,) for text in self.texts]


def chunk_texts(texts: Iterable[str], *, origin: str, chunk_characters: int = CHUNK_CHARACTERS) -> Iterator[TextChunk]:
    """The texts in order, about `chunk_characters` at a time."""
    first, pending, characters = 1, list[str](), 0
    for text in texts:
        pending.append(text)
        characters += len(text)
        if characters >= chunk_characters:
            yield TextChunk(origin, first, pending)
            first, pending, characters = first + len(pending), [], 0
    if pending:
        yield TextChunk(origin, first, pending)


def read_texts(paths: Iterable[Path], keys: Sequence[str]) -> Iterator[str]:
    """The text of every key of every document, one after the other. Raises DataError for a bad file or document."""
    fields = Fields(tuple(keys))
    for path in paths:
        size = fingerprint(path).size
        for span in cut(str(path), size, max(size, 1)):
            for document in read_span(span, fields, Meter()):
                if isinstance(document, Bad):
                    raise DataError(document.describe())
                yield from document
