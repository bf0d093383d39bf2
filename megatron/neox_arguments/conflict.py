"""Keys that do not fit together: what a rule raises, before it is known where they were written."""

from __future__ import annotations

from collections.abc import Sequence

from megatron.errors import ConfigError


class Conflict(ConfigError):
    """Values that do not go together: the keys involved, and a sentence with the reason and the nearest legal value."""

    def __init__(self, keys: Sequence[str], reason: str) -> None:
        self.keys = tuple(keys)
        self.reason = reason
        super().__init__([f"{', '.join(self.keys)}: {reason}"])
