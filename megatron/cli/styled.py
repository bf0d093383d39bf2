"""Lines for the terminal: in colour where there is one, plain text in pipes and files."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from megatron.command import writing_output

Line = Sequence[tuple[str, str]]
"""Pieces of a line: text and style ("bold", "red", ... or empty)."""


def show_lines(lines: Iterable[Line]) -> None:
    """Print lines, never wrapped or shortened. A reader that has gone (`| head`) is no mistake.

    Raises NeoXError when the output cannot be written, e.g. on a full disk.
    """
    with writing_output():
        _write(lines)


def _write(lines: Iterable[Line]) -> None:
    if sys.stdout.isatty():
        from rich.console import Console  # takes longer to import than most of what is shown takes to find out
        from rich.text import Text

        console = Console(file=sys.stdout, highlight=False)
        for line in lines:
            console.print(Text.assemble(*line), soft_wrap=True)
    else:
        sys.stdout.write("".join("".join(text for text, _ in line).rstrip() + "\n" for line in lines))


def plain(text: str = "", style: str = "") -> Line:
    """A line of one piece."""
    return [(text, style)]
