"""Documents in chunks: from JSON lines (`.jsonl` or `.json`, plain or compressed as `.gz` or `.zst`), or from memory.

Lines travel as raw bytes, so that reading is one cheap pass and the parsing can happen in another process.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol

from megatron.errors import DataError, MissingRequirement

CHUNK_BYTES = 1 << 18
SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".jsonl.zst", ".json.zst")


class Chunk(Protocol):
    """Consecutive documents, small enough to send to another process."""

    @property
    def consumed(self) -> int:
        """How much of the input this chunk is: bytes on disk for files, documents for texts in memory."""
        ...

    def documents(self, keys: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """The texts under `keys` of each document. Raises DataError, which says where, for a bad one."""
        ...


@dataclass(frozen=True)
class LineChunk:
    """Consecutive lines of one file, undecoded; `first_line` counts from 1."""

    path: str
    first_line: int
    lines: list[bytes]
    consumed: int

    def documents(self, keys: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """Parse the lines; blank ones are passed over."""
        for number, line in enumerate(self.lines, start=self.first_line):
            if line.strip():
                yield _parse_line(line, keys, where=f"{self.path}:{number}")


@dataclass(frozen=True)
class TextChunk:
    """Consecutive documents of one text each; `first` counts from 1 in `origin`, which is a name for messages."""

    origin: str
    first: int
    texts: list[str]

    @property
    def consumed(self) -> int:
        return len(self.texts)

    def documents(self, keys: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """One text a document, whatever the one key is called."""
        assert len(keys) == 1, "a corpus has one text a document"
        for number, text in enumerate(self.texts, start=self.first):
            yield (_checked(text, where=f"document {number} of {self.origin}"),)


def check_inputs(paths: Sequence[Path]) -> None:
    """Raise one DataError that names every path that does not exist or is of an unknown kind."""
    problems = [f"the input {path} does not exist" for path in paths if not path.is_file()]
    problems += [
        f"the input {path} is of an unknown kind: its name must end in one of {', '.join(SUFFIXES)}"
        for path in paths
        if path.is_file() and not path.name.endswith(SUFFIXES)
    ]
    if not paths:
        problems = ["there is no input: give at least one file"]
    if problems:
        raise DataError("\n".join(f"{problem}." for problem in problems))


def read_chunks(paths: Iterable[Path], *, chunk_bytes: int = CHUNK_BYTES) -> Iterator[LineChunk]:
    """The lines of all files in order, about `chunk_bytes` (before parsing, after decompression) at a time.

    Raises DataError when a file cannot be read or decompressed, MissingRequirement when `.zst` needs a package.
    """
    for path in paths:
        with open(path, "rb") as raw, _decompressed(raw, path) as file:
            line, position = 1, 0
            while lines := _read_lines(file, path, chunk_bytes):
                yield LineChunk(str(path), line, lines, raw.tell() - position)
                line, position = line + len(lines), raw.tell()


def chunk_texts(texts: Iterable[str], *, origin: str, chunk_characters: int = CHUNK_BYTES) -> Iterator[TextChunk]:
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
    """The text of every key of every line, one after the other. Raises DataError for a bad file or line."""
    for chunk in read_chunks(paths):
        for texts in chunk.documents(keys):
            yield from texts


def _parse_line(line: bytes, keys: Sequence[str], *, where: str) -> tuple[str, ...]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not valid JSON ({error}): correct or remove the line.") from None
    if not isinstance(record, dict):
        raise DataError(f"{where} holds a {_json_type(record)}, not an object with the key {_quoted(keys)}.")
    return tuple(_text_of(record, key, where) for key in keys)


def _text_of(record: dict[str, Any], key: str, where: str) -> str:
    if key not in record:
        raise DataError(
            f'{where} has no key "{key}" (it has {_quoted(record)}): choose another key or remove the line.'
        )
    text = record[key]
    if not isinstance(text, str):
        raise DataError(f'{where} has a {_json_type(text)} under "{key}", where a text is needed.')
    return _checked(text, where)


def _checked(text: str, where: str) -> str:
    """`text`, unless it has half of a surrogate pair, which JSON can express and UTF-8 cannot: DataError."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where} has the code {ord(text[error.start]):#06x}, half of a surrogate pair, which is not a character: "
            "correct the text, or remove it."
        ) from None
    return text


def _quoted(keys: Iterable[str]) -> str:
    return ", ".join(f'"{key}"' for key in list(keys)[:10]) or "none"


def _json_type(value: Any) -> str:
    names = {dict: "object", list: "list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "number")


def _read_lines(file: IO[bytes], path: Path, size: int) -> list[bytes]:
    try:
        return file.readlines(size)
    except Exception as error:
        # gzip and zlib name their errors; zstandard's cannot be named here, as the package may not be installed.
        if isinstance(error, (OSError, EOFError, zlib.error)) or type(error).__name__ == "ZstdError":
            raise DataError(f"{path} cannot be read or decompressed ({error}): copy or compress it again.") from None
        raise


def _decompressed(raw: BinaryIO, path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return gzip.open(raw)  # type: ignore[return-value]  # a GzipFile is a binary file in all but its declared type
    if path.suffix == ".zst":
        return _open_zstandard(raw, path)
    return raw


def _open_zstandard(raw: BinaryIO, path: Path) -> IO[bytes]:
    try:
        import zstandard  # type: ignore[import-not-found]  # optional
    except ModuleNotFoundError:
        raise MissingRequirement(
            f'{path} needs the package "zstandard": pip install -r requirements/requirements-preprocessing.txt'
        ) from None
    return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True))
