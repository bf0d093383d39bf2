"""Logging by rank: rank 0 tells what happens, the other ranks only what is wrong, and libraries only what concerns the user."""

from __future__ import annotations

import logging
import sys

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
