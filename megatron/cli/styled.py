"""Lines for the terminal: in colour where there is one, plain text in pipes and files."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence

from megatron.errors import NeoXError

Line = Sequence[tuple[str, str]]
"""Pieces of a line: text and style ("bold", "red", ... or empty)."""


def show_lines(lines: Iterable[Line]) -> None:
    """Print lines, never wrapped or shortened. A reader that has gone (`| head`) is no mistake.

    Raises NeoXError when the output cannot be written, e.g. on a full disk.
    """
    try:
        _write(lines)
        sys.stdout.flush()
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)  # for what is still in the buffer when the program ends
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        if not isinstance(error, BrokenPipeError):
            raise NeoXError(f"the output cannot be written ({error.strerror}): choose another place for it") from None


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
