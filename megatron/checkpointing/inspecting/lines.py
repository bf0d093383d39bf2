"""Lines of a page: pieces of text with their styles, columns that stand below one another."""

from __future__ import annotations

from collections.abc import Sequence

Line = list[tuple[str, str]]
"""Pieces of a line: text and style (of rich, or empty)."""

GAP = "  "


def heading(text: str) -> Line:
    """The line above a part of the page."""
    return [(text, "bold")]


def columns(rows: Sequence[Sequence[tuple[str, str]]], *, right: Sequence[int] = ()) -> list[Line]:
    """Rows of cells (text and style) as aligned lines; the columns numbered in `right` are aligned at the right, the last is not filled."""
    widths = [max(len(text) for text, _ in column) for column in zip(*rows, strict=True)]
    last = len(widths) - 1
    lines = []
    for row in rows:
        line: Line = []
        for number, ((text, style), width) in enumerate(zip(row, widths, strict=True)):
            fill = " " * (width - len(text))
            line += (
                [(fill, ""), (text, style)]
                if number in right
                else [(text, style), ("" if number == last else fill, "")]
            )
            line.append(("" if number == last else GAP, ""))
        lines.append([(text, style) for text, style in line if text])
    return lines


def named(pairs: Sequence[tuple[str, str]]) -> list[Line]:
    """Facts: names and what is to be said of them."""
    return columns([[("", ""), (name, "dim"), (text, "")] for name, text in pairs]) if pairs else []
