"""A line that says what is being done."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def progress(doing: str) -> Iterator[None]:
    """A line on stderr while something is done; on a terminal it goes when that is over."""
    sys.stderr.write(doing + ("" if sys.stderr.isatty() else "\n"))
    sys.stderr.flush()
    try:
        yield
    finally:
        if sys.stderr.isatty():
            sys.stderr.write("\r\033[K")
