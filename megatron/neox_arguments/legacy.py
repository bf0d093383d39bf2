"""Keys of older GPT-NeoX files, translated to today's before anything else looks at them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from megatron.neox_arguments.values import ConfigValues, Origin, quote


@dataclass(frozen=True)
class Translation:
    """An older key, its value and place, what it was read as, and why."""

    key: str
    value: Any
    origin: Origin | None
    becomes: dict[str, Any]
    reason: str

    def __str__(self) -> str:
        place = "" if self.origin is None else f" ({self.origin})"
        read_as = ", ".join(f"{key}: {quote(value)}" for key, value in self.becomes.items()) or "nothing"
        return f'"{self.key}" is {quote(self.value)}{place}: read as {read_as}; {self.reason}'


def modernise(values: ConfigValues) -> tuple[ConfigValues, tuple[Translation, ...]]:
    """The values with today's keys only, and what was translated."""
    return values, ()
