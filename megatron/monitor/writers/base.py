"""What a metric writer is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Writer(Protocol):
    """Receives every record on rank 0. A constructor takes the run's `MonitoringArgs`."""

    def write(self, iteration: int, record: Mapping[str, object]) -> None:
        """Store one record of scalars under its iteration."""
        ...

    def close(self) -> None:
        """Finish: everything written is on disk (or sent) when this returns."""
        ...
