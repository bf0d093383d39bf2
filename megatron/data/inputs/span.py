"""What readers are given and give: a span of a file in, documents (or what is wrong with them) out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from megatron.data.inputs.records import BadRecord, Fields

SCAN_BYTES = 1 << 22


@dataclass(frozen=True)
class Span:
    """A part of one file that can be read on its own.

    begin, end: byte positions in a file of lines (the lines that begin there), row groups in a parquet file, else the whole file.
    size: bytes on disk, for sharing out work and for telling progress.
    """

    path: str
    begin: int
    end: int
    size: int


@dataclass(frozen=True)
class Bad:
    """A document that cannot be used. `where` is its place; with `line` it is a file, whose lines are counted from byte `begin` on.

    A reader that starts in the middle of a file does not know how many lines come before it; `describe` counts them.
    """

    where: str
    reason: str
    line: int | None = None
    begin: int = 0

    def describe(self) -> str:
        """`FILE:LINE reason`."""
        if self.line is None:
            return f"{self.where} {self.reason}"
        return f"{self.where}:{_lines_before(Path(self.where), self.begin) + self.line} {self.reason}"


Document: TypeAlias = tuple[Any, ...] | Bad
"""What Fields takes from a record: the texts under the keys asked for, in their order."""


@dataclass
class Meter:
    """How many bytes of a span have been read, as counted in `Span.size`."""

    consumed: int = 0


class DamagedFile(Exception):
    """The rest of a file cannot be read, because its contents are not what its name promises."""


def plain_document(text: str, fields: Fields, where: str) -> Document:
    """A document that is nothing but a text, for the formats without keys."""
    try:
        return fields.of_text(text)
    except BadRecord as error:
        return Bad(where, str(error))


def _lines_before(path: Path, begin: int) -> int:
    """How many lines of a file begin before byte `begin`."""
    count, left, last = 0, begin, b"\n"
    with open(path, "rb", buffering=0) as file:
        while left and (data := file.read(min(left, SCAN_BYTES))):
            count, left, last = count + data.count(b"\n"), left - len(data), data[-1:]
    return count + (last != b"\n")
