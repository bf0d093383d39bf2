"""One JSON array of documents, as lm_dataformat's JSONArchive writes them: read an element at a time, never as a whole."""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Iterator
from typing import IO, Any

from megatron.data.inputs.records import BadRecord, Fields
from megatron.data.inputs.span import Bad, Document

READ_BYTES = 1 << 18
SPACE = " \t\r\n"


def begins_array(stream: io.BufferedReader) -> bool:
    """Whether a stream holds an array rather than lines; nothing is taken from it."""
    return stream.peek(1).lstrip(SPACE.encode()).startswith(b"[")


def read_array_stream(stream: IO[bytes], where: str, fields: Fields) -> Iterator[Document]:
    """The documents of an array; they count from 1 in messages. What follows a syntax error cannot be read and is one bad document."""
    try:
        for number, record in enumerate(_elements(stream), start=1):
            place = f"document {number} of {where}"
            try:
                yield fields.of_record(record)
            except BadRecord as error:
                yield Bad(place, str(error))
    except (ValueError, RecursionError) as error:
        yield Bad(where, f"is not a valid JSON array ({error}): correct it, or write one document a line.")


def _elements(stream: IO[bytes]) -> Iterator[Any]:
    """The elements of an array, one after the other. Raises ValueError where it is not one."""
    decode = json.JSONDecoder().raw_decode
    text = _Text(stream)
    text.expect("[")
    if text.next() == "]":
        return
    while True:
        yield text.element(decode)
        if text.next() == "]":
            return
        text.expect(",")


class _Text:
    """The part of a stream that is being parsed: grows until the next element is whole."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text = ""

    def next(self) -> str:
        """The next character that is not white space; "" at the end."""
        self._text = self._text.lstrip(SPACE)
        while not self._text and self._grow(READ_BYTES):
            self._text = self._text.lstrip(SPACE)
        return self._text[:1]

    def expect(self, character: str) -> None:
        """Step over a character that must come next. Raises ValueError."""
        if (found := self.next()) != character:
            raise ValueError(f'expected "{character}", found {found!r}')
        self._text = self._text[1:]

    def element(self, decode: Any) -> Any:
        """The next value. The text is doubled until it parses, so that a long value costs a few attempts, not thousands."""
        self.next()
        while True:
            try:
                value, end = decode(self._text)
            except ValueError:
                if not self._grow(max(READ_BYTES, len(self._text))):
                    raise
                continue
            if end < len(self._text) or not self._grow(READ_BYTES):  # a number may go on
                self._text = self._text[end:]
                return value

    def _grow(self, size: int) -> bool:
        data = self._stream.read(size)
        self._text += self._decoder.decode(data, final=not data)
        return bool(data)
