"""Plain text: a file is a document, in UTF-8. Line ends become line feeds, as when Python reads a text file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from megatron.data.inputs.records import Fields
from megatron.data.inputs.span import Bad, Document, plain_document


def read_text_stream(stream: IO[bytes], where: str, fields: Fields) -> Iterator[Document]:
    """The one document of a stream."""
    try:
        text = stream.read().decode("utf-8")
    except UnicodeDecodeError as error:
        yield Bad(where, f"is not UTF-8 text ({error}): convert it, or leave it out.")
        return
    yield plain_document(text.replace("\r\n", "\n").replace("\r", "\n"), fields, where)
