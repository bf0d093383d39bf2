"""JSON lines: an object a line. A plain file is cut anywhere, and a span's lines are those that begin in it.

A line ends with a line feed; a carriage return before it is white space to JSON. Blank lines are passed over, but counted.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import IO

from megatron.data.inputs.records import BadRecord, Fields
from megatron.data.inputs.span import Bad, Document, Meter, Span

CHUNK_BYTES = 1 << 20


def cut_lines(path: str, size: int, piece_bytes: int) -> Iterator[Span]:
    """Spans of a plain file of `size` bytes, of at most `piece_bytes`, without reading it."""
    for begin in range(0, size, piece_bytes):
        end = min(begin + piece_bytes, size)
        yield Span(path, begin, end, end - begin)


def read_line_span(span: Span, fields: Fields, meter: Meter) -> Iterator[Document]:
    """The documents on the lines that begin in a span of a plain file."""
    with open(span.path, "rb") as file:
        position, line = _first_line(file, span), 0
        while position < span.end:
            lines = _read_lines(file, span.end - position)
            if not lines:
                break
            for text in lines:
                line += 1
                document = _document(text, fields, where=span.path, line=line, begin=span.begin)
                if document is not None:
                    yield document
            position += sum(map(len, lines))
            meter.consumed = min(position, span.end) - span.begin
    meter.consumed = span.size


def read_line_stream(stream: IO[bytes], where: str, fields: Fields) -> Iterator[Document]:
    """The documents on all lines of a stream; `where` names it in messages."""
    for line, text in enumerate(stream, start=1):
        document = _document(text, fields, where=f"{where}:{line}")
        if document is not None:
            yield document


def _first_line(file: io.BufferedReader, span: Span) -> int:
    """Move to where the first line of the span begins, which is at or after its end when no line begins in it."""
    if span.begin == 0:
        return 0
    position = span.begin - 1
    file.seek(position)
    while position < span.end:
        # Read in parts: a line may be longer than the span, and then only its end matters.
        part = file.readline(min(CHUNK_BYTES, span.end - position))
        position += len(part)
        if part.endswith(b"\n") or not part:
            break
    return position


def _read_lines(file: io.BufferedReader, left: int) -> list[bytes]:
    """The next lines, about a chunk of them, none of which begins `left` bytes from here or later."""
    hint = min(CHUNK_BYTES, left - 1)  # readlines goes on until it has more than its hint
    return file.readlines(hint) if hint > 0 else [file.readline()]


def _document(text: bytes, fields: Fields, *, where: str, line: int | None = None, begin: int = 0) -> Document | None:
    try:
        return fields.of_line(text)
    except BadRecord as error:
        return Bad(where, str(error), line, begin) if text.strip() else None
