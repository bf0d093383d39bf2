"""What a metric writer is, and what writers have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Protocol

from megatron.errors import NeoXError


class Writer(Protocol):
    """Receives every record on rank 0. A constructor takes the run's `MonitoringArgs`."""

    def write(self, iteration: int, record: Mapping[str, object]) -> None:
        """Store one record of scalars under its iteration."""
        ...

    def close(self) -> None:
        """Finish: everything written is on disk (or sent) when this returns."""
        ...


@contextlib.contextmanager
def errors_name_the_key(key: str, value: str | None) -> Iterator[None]:
    """Around making files in the directory that a key of the config names: an OSError becomes a NeoXError that says which key."""
    try:
        yield
    except OSError as error:
        raise NeoXError(
            f'"{key}" is "{value}", and nothing can be written there ({error}): give a directory you may write to'
        ) from error
