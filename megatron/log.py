"""Logging by rank: rank 0 tells what happens, the other ranks only what is wrong, and libraries only what concerns the user.

And that telling it cannot end a run: nobody may be listening any more.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import TYPE_CHECKING, TextIO, cast

if TYPE_CHECKING:
    from io import TextIOWrapper

LIBRARIES_WITH_OWN_HANDLERS = ("DeepSpeed",)
"""Loggers that print by themselves instead of passing their messages on."""


def configure_logging(rank: int = 0) -> None:
    """Send all log messages of this process to stderr: ours from INFO on rank 0 and from WARNING on the others.

    Libraries are heard from WARNING on rank 0 and from ERROR on the others, which would only repeat it. Calling it again replaces
    what an earlier call set.
    """
    quiet = _LibrariesFrom(logging.ERROR if rank else logging.WARNING)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(RankFormatter(rank))
    handler.addFilter(quiet)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("megatron").setLevel(logging.WARNING if rank else logging.INFO)
    for name in LIBRARIES_WITH_OWN_HANDLERS:
        # A filter and not `setLevel`, because the library sets its level when it is imported, which may be later.
        library = logging.getLogger(name)
        library.filters[:] = [kept for kept in library.filters if not isinstance(kept, _LibrariesFrom)]
        library.addFilter(quiet)
    logging.captureWarnings(True)


def get_logger(name: str) -> logging.Logger:
    """The logger of a module; pass `__name__`."""
    return logging.getLogger(name)


def keep_output_harmless() -> None:
    """From now on nothing that is printed can end this process; call it before `configure_logging`.

    When a reader has gone (a closed terminal, `| head`), what is printed later is dropped, after a warning for stdout. Characters that
    the terminal's encoding lacks become question marks.
    """
    if isinstance(sys.stdout, _HarmlessOutput):
        return
    with contextlib.suppress(AttributeError):  # whatever replaced the stream knows no encodings
        cast("TextIOWrapper", sys.stdout).reconfigure(errors="replace")
    sys.stdout = cast("TextIO", _HarmlessOutput(sys.stdout, warn=True))
    sys.stderr = cast("TextIO", _HarmlessOutput(sys.stderr, warn=False))


class _HarmlessOutput:
    """A text stream whose writes never fail; everything else is the wrapped stream's."""

    def __init__(self, stream: TextIO, *, warn: bool) -> None:
        self._stream = stream
        self._warn = warn

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def _give_up(self, error: OSError) -> None:
        # Before the warning, which a live display shows through this very stream.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        if self._warn:
            get_logger(__name__).warning(
                "nothing can be printed any more (%s); the run goes on in silence", error.strerror
            )


class RankFormatter(logging.Formatter):
    """`message` on rank 0, `[rank 3] message` elsewhere; levels from warning up are named, messages of libraries carry their name."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self._rank = rank

    def format(self, record: logging.LogRecord) -> str:
        """The line of one message (several lines when it carries a traceback)."""
        parts = [f"[rank {self._rank}]"] if self._rank else []
        if record.levelno >= logging.WARNING:
            parts.append(f"{record.levelname.lower()}:")
        if not _is_ours(record):
            parts.append(f"{record.name}:")
        return " ".join([*parts, super().format(record)])


class _LibrariesFrom(logging.Filter):
    """Passes our messages, and those of libraries from `level` on."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self._level = level

    def filter(self, record: logging.LogRecord) -> bool:
        return _is_ours(record) or record.levelno >= self._level


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.split(".")[0] == "megatron"
