"""The table of formats: which names mean what, how such files are cut into spans, and how a span is read.

.jsonl .ndjson .json   a document a line; a .json file may be one array instead
.txt                   a file is a document
.parquet               a document a row
.dat .tar .zip         archives, as lm_dataformat writes and reads them
.gz .zst .xz .bz2      after any of these but .parquet and .zip
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import IO, Any

from megatron.data.inputs.archives import read_tar_stream, read_zip_stream
from megatron.data.inputs.compression import OPENERS, is_damage, open_decompressed
from megatron.data.inputs.dat import read_dat_stream
from megatron.data.inputs.json_array import begins_array, read_array_stream
from megatron.data.inputs.json_lines import cut_lines, read_line_span, read_line_stream
from megatron.data.inputs.parquet import cut_parquet, read_parquet_span
from megatron.data.inputs.plain_text import read_text_stream
from megatron.data.inputs.records import Fields
from megatron.data.inputs.span import Bad, Document, Meter, Span
from megatron.errors import DataError

SUFFIXES = (".jsonl", ".ndjson", ".json", ".txt", ".parquet", ".dat", ".tar", ".zip")
NOT_COMPRESSED = (".parquet", ".zip")
OTHER_NAMES = {".tgz": ".tar.gz", "_data.xz": ".tar.xz"}  # the latter: a part of OpenWebText
METER_DOCUMENTS = 64


@dataclass(frozen=True)
class Format:
    """What a name means: one of `SUFFIXES`, and a compression or ""."""

    suffix: str
    compression: str


def format_of(name: str) -> Format | None:
    """The format of a file called `name`; None when it is not known."""
    for other, usual in OTHER_NAMES.items():
        if name.endswith(other):
            name = name.removesuffix(other) + usual
    compression = PurePath(name).suffix if PurePath(name).suffix in OPENERS else ""
    suffix = PurePath(name.removesuffix(compression)).suffix
    if suffix not in SUFFIXES or (compression and suffix in NOT_COMPRESSED):
        return None
    return Format(suffix, compression)


def cut(path: str, size: int, piece_bytes: int) -> Iterator[Span]:
    """The spans of a file of a known format, of about `piece_bytes` where the format can be cut. Empty files have none."""
    if _is_plain_lines(path):
        yield from cut_lines(path, size, piece_bytes)
    elif format_of(path) == Format(".parquet", ""):
        yield from cut_parquet(path, size, piece_bytes)
    elif size:
        yield Span(path, 0, size, size)


def read_span(span: Span, fields: Fields, meter: Meter) -> Iterator[Document]:
    """The documents of a span, in order; damage is one bad document, after which the span ends.

    Raises DataError when the disk fails, MissingRequirement when a package is missing.
    """
    try:
        yield from _reader_of(span.path)(span, fields, meter)
    except Exception as error:
        if is_damage(error):
            meter.consumed = span.size
            yield Bad(span.path, f"cannot be read or decompressed to its end ({error}): copy or compress it again.")
        elif isinstance(error, OSError):
            raise DataError(f"{span.path} cannot be read: {error.strerror or error}.") from None
        else:
            raise


def _reader_of(path: str) -> Callable[[Span, Fields, Meter], Iterator[Document]]:
    if _is_plain_lines(path):
        return read_line_span
    return read_parquet_span if format_of(path) == Format(".parquet", "") else _read_file


def _is_plain_lines(path: str) -> bool:
    """Whether a file is of lines and not compressed, so that it can be read from anywhere."""
    kind = format_of(path)
    if kind is None or kind.compression or kind.suffix not in (".jsonl", ".ndjson", ".json"):
        return False
    if kind.suffix != ".json":
        return True
    with open(path, "rb") as file:
        return not begins_array(file)


def _read_file(span: Span, fields: Fields, meter: Meter) -> Iterator[Document]:
    with open(span.path, "rb") as raw:
        for number, document in enumerate(_read_member(raw, span.path, span.path, fields)):
            if number % METER_DOCUMENTS == 0:
                meter.consumed = raw.tell()
            yield document
    meter.consumed = span.size


def _read_member(stream: IO[bytes], name: str, where: str, fields: Fields) -> Iterator[Document]:
    """The documents of a file or of a member of an archive, by its name; one of no known format is plain text."""
    kind = format_of(name) or Format(".txt", "")
    if kind.suffix == ".parquet":
        yield Bad(where, "is a parquet file in an archive, which cannot be read there: unpack it.")
        return
    yield from STREAM_READERS[kind.suffix](open_decompressed(stream, kind.compression, name=where), where, fields)


def _read_json_stream(stream: IO[bytes], where: str, fields: Fields) -> Iterator[Document]:
    unbuffered: Any = stream
    buffered: Any = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(unbuffered)
    read = read_array_stream if begins_array(buffered) else read_line_stream
    yield from read(buffered, where, fields)


STREAM_READERS: dict[str, Callable[[IO[bytes], str, Fields], Iterator[Document]]] = {
    ".jsonl": read_line_stream,
    ".ndjson": read_line_stream,
    ".json": _read_json_stream,
    ".txt": read_text_stream,
    ".dat": read_dat_stream,
    ".tar": partial(read_tar_stream, read_member=_read_member),
    ".zip": partial(read_zip_stream, read_member=_read_member),
}
