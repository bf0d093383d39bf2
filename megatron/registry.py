"""A registry maps the names used in configs to `"module:object"` strings, and imports an object only when it is asked for.

A choice between variants is made once, here. Nothing is imported until `load`, so a menu costs nothing to define and
the configuration can list what exists without importing torch.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from megatron.errors import MissingRequirement, NeoXError


@dataclass(frozen=True)
class Entry:
    """Where a component lives (`target`, `"package.module:Object"`) and which file of `requirements/` it needs, if any."""

    target: str
    requirement: str | None = None


class Registry:
    """The components of one kind (`what`, for messages) by name."""

    def __init__(self, what: str, entries: Mapping[str, str | Entry]) -> None:
        self.what = what
        self._entries = {name: Entry(entry) if isinstance(entry, str) else entry for name, entry in entries.items()}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def requirement(self, name: str) -> str | None:
        """The file of `requirements/` that a component needs, if any. It is called after its package: `requirements-PACKAGE.txt`."""
        return self._entries[name].requirement

    def load(self, name: str) -> Any:
        """The object called `name`.

        Raises NeoXError when there is no such name, MissingRequirement when its optional package is not installed.
        """
        if name not in self._entries:
            raise NeoXError(
                f'{self.what} "{name}" does not exist: choose one of {", ".join(self.names)}{did_you_mean(name, self.names)}'
            )
        entry = self._entries[name]
        module_name, _, object_name = entry.target.partition(":")
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if entry.requirement is None or (error.name or "").split(".")[0] == "megatron":
                raise
            raise MissingRequirement(
                f'{self.what} "{name}" needs the package "{error.name}": pip install -r requirements/{entry.requirement}'
            ) from error
        return getattr(module, object_name)


def did_you_mean(name: str, allowed: tuple[str, ...] | list[str]) -> str:
    """` (did you mean "x"?)` for the closest allowed name, or an empty string when none is close."""
    close = difflib.get_close_matches(name, allowed, n=1, cutoff=0.7)
    return f' (did you mean "{close[0]}"?)' if close else ""
