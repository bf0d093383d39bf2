"""What a metric writer is, and what writers have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from megatron.errors import NeoXError


class Writer(Protocol):
    """Receives every record of its process. A constructor takes the run's arguments and the `Process`."""

    def write(self, iteration: int, record: Mapping[str, object]) -> None:
        """Store one record of scalars under its iteration. Raises OSError or WriterFailed when that is impossible from now on."""
        ...

    def close(self, *, failed: bool = False) -> None:
        """Finish: everything written is on disk (or sent) when this returns. failed: the run ends by an error."""
        ...


@dataclass(frozen=True)
class Process:
    """Who writes. resumed: whether the run goes on from a checkpoint."""

    rank: int = 0
    resumed: bool = False


FIRST = Process()
"""Rank 0 of a run from the beginning."""


class WriterFailed(Exception):
    """A writer cannot do its work, which must not end the run."""


def scalars(record: Mapping[str, object]) -> dict[str, float]:
    """The numbers of a record by the names that dashboards show: below `train/`, or below the key's own prefix (`validation/loss`)."""
    return {
        key if "/" in key else f"train/{key}": float(value)
        for key, value in record.items()
        if isinstance(value, int | float)
    }


@contextlib.contextmanager
def failures_end_the_writer() -> Iterator[None]:
    """Around calls of a library that may raise anything: its exceptions become WriterFailed with the first line of what it said."""
    try:
        yield
    except Exception as error:
        raise WriterFailed(first_line(error)) from error


def first_line(error: Exception) -> str:
    """What an exception says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextlib.contextmanager
def errors_name_the_key(key: str, value: str | None) -> Iterator[None]:
    """Around making files in the directory that a key of the config names: an OSError becomes a NeoXError that says which key."""
    try:
        yield
    except OSError as error:
        raise NeoXError(
            f'"{key}" is "{value}", and nothing can be written there ({error}): give a directory you may write to'
        ) from error
