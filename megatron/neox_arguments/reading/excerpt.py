"""The lines of files that a message is about, with the text in question underlined.

    a.yml:3 | zero_optimization: {stage: 3}
            |                            ^

Carets are placed by the columns that characters take on a terminal: two for Chinese or emoji, none for combining accents. Lines of more
than 100 columns are cut around what is underlined.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePath

from megatron.neox_arguments.reading.values import ConfigFile, Origin

WIDTH = 100
"""Columns of a line that are shown."""

CONTEXT = 40
"""Columns shown before the underlined text where a line is cut."""


def excerpt(files: Sequence[ConfigFile], origins: Iterable[Origin | None]) -> str:
    """The lines at `origins`, each once and underlined wherever an origin points; empty for places that are not in a file.

    Every line of the result starts with a newline, so that it can be put behind a sentence.
    """
    lines = {file.path: file.text.splitlines() for file in files}
    marked: dict[str, dict[int, list[Origin]]] = {}
    for origin in origins:
        if origin is not None and origin.line is not None and origin.line <= len(lines.get(origin.source, ())):
            marked.setdefault(origin.source, {}).setdefault(origin.line, []).append(origin)
    names = _short_names(list(marked))
    shown = [
        (f"{names[source]}:{number}", text, carets)
        for source, numbers in marked.items()
        for number, spots in sorted(numbers.items())
        for text, carets in _underlined(lines[source][number - 1], spots)
    ]
    gutter = max((len(place) for place, _, _ in shown), default=0)
    return "".join(
        f"\n    {place:{gutter}} | {text}".rstrip() + f"\n    {'':{gutter}} | {carets}" for place, text, carets in shown
    )


def _short_names(paths: Sequence[str]) -> dict[str, str]:
    """The last part of each path where that tells them apart: long margins would break lines apart on a terminal."""
    last = [PurePath(path).name for path in paths]
    return dict(zip(paths, last if len(set(last)) == len(last) else paths, strict=True))


def _underlined(line: str, origins: Sequence[Origin]) -> Iterator[tuple[str, str]]:
    """The line and its carets; a long line once for each part of it that is underlined."""
    text = "".join(_visible(character) for character in line.rstrip())
    columns = list(itertools.accumulate((_columns(character) for character in text), initial=0))
    spans = sorted(_span(origin, columns) for origin in origins)
    if columns[-1] <= WIDTH:
        yield text, _carets(spans)
        return
    while spans:
        start = max(0, min(spans[0][0] - CONTEXT, columns[-1] - WIDTH))
        here = [span for span in spans if span[0] < start + WIDTH]
        spans = spans[len(here) :]
        yield _cut(text, columns, start), _carets([(first - start, min(last - start, WIDTH)) for first, last in here])


def _span(origin: Origin, columns: Sequence[int]) -> tuple[int, int]:
    """First and last + 1 terminal column of an origin; one that goes on over several lines is underlined to the end of the first."""
    end = len(columns) - 1
    first = min((origin.column or 1) - 1, end)
    last = end if origin.width is None else min(first + origin.width, end)
    return columns[first], max(columns[last], columns[first] + 1)


def _carets(spans: Iterable[tuple[int, int]]) -> str:
    marked = {column for first, last in spans for column in range(first, last)}
    return "".join("^" if column in marked else " " for column in range(max(marked, default=-1) + 1))


def _cut(text: str, columns: Sequence[int], start: int) -> str:
    """The part of a line in the columns from `start` on, with dots where something is left out."""
    kept = "".join(
        character for character, column in zip(text, columns, strict=False) if start <= column < start + WIDTH
    )
    before = "..." if start else ""
    after = "..." if columns[-1] > start + WIDTH else ""
    return before + kept[len(before) : len(kept) - len(after)] + after


def _visible(character: str) -> str:
    """The character, or a space or ? for those that would move or colour the rest of the line."""
    if unicodedata.category(character) in ("Cc", "Zl", "Zp"):
        return " " if character == "\t" else "?"
    return character


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
