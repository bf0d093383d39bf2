"""Values of a configuration with the place each was written at."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

KeyPath = tuple[str | int, ...]
"""Where a value lies: `("optimizer", "params", "lr")`; list items by position."""


@dataclass(frozen=True)
class Origin:
    """Where something was written. `line` and `column` count from 1 and are absent outside files; `width` is in
    characters, None for the rest of the line.

    The origin of a key holds that of its value in `value`.
    """

    source: str
    line: int | None = None
    column: int | None = None
    width: int | None = 1
    value: Origin | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Override:
    """A value that replaced an earlier one."""

    key: str
    old: Any
    old_origin: Origin | None
    new: Any
    new_origin: Origin | None

    @property
    def lost(self) -> tuple[str, ...]:
        """Keys of the old section that the new one is without, so that they have their defaults again."""
        return tuple(_lost(self.key, self.old, self.new))

    def __str__(self) -> str:
        change = f'"{self.key}": {quote(self.old)} ({self.old_origin}) -> {quote(self.new)} ({self.new_origin})'
        return f"{change}; {', '.join(self.lost)} no longer given" if self.lost else change


def _lost(path: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key, value in old.items():
            if key in new:
                yield from _lost(f"{path}.{key}", value, new[key])
            else:
                yield f"{path}.{key}"


@dataclass(frozen=True)
class Assignment:
    """A `key=value` word, read: the path of the key and the value."""

    path: tuple[str, ...]
    value: Any
    origin: Origin


@dataclass(frozen=True)
class ConfigFile:
    """A file as it was read."""

    path: str
    text: str


@dataclass(frozen=True)
class ConfigValues:
    """Merged values, not yet checked: `values` by key, `origins` by key path, what was overridden, the files and then the words
    that were merged, in order, and problems met while merging."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[KeyPath, Origin] = field(default_factory=dict)
    overrides: tuple[Override, ...] = ()
    files: tuple[ConfigFile, ...] = ()
    assignments: tuple[Assignment, ...] = ()
    problems: tuple[str, ...] = ()

    def value(self, key: str) -> Any:
        """What is written for `key` ("norm", "optimizer.params.lr", "attention_config.0"), None when nothing is."""
        value: Any = self.values
        for name in key.split("."):
            if isinstance(value, list) and name.isdigit():
                value = value[int(name)] if int(name) < len(value) else None
            else:
                value = value.get(name) if isinstance(value, Mapping) else None
        return value

    def find(self, key: str, wanted: Any) -> str:
        """Where within the value of `key` another is written: "attention_config.0.0.1"; `key` itself when nowhere."""

        def search(path: str, value: Any) -> str | None:
            if value == wanted:
                return path
            items = enumerate(value) if isinstance(value, list) else ()
            return next((found for name, item in items if (found := search(f"{path}.{name}", item))), None)

        return search(key, self.value(key)) or key

    def origin(self, key: str | KeyPath) -> Origin | None:
        """Where `key` ("norm", "optimizer.params.lr" or a key path) was written, else the nearest enclosing key, else None."""
        path: KeyPath = key if isinstance(key, tuple) else tuple(key.split("."))
        if path not in self.origins:
            path = tuple(int(name) if isinstance(name, str) and name.isdigit() else name for name in path)
        while path and path not in self.origins:
            path = path[:-1]
        return self.origins.get(path)

    def value_origin(self, key: str | KeyPath) -> Origin | None:
        """Where the value of `key` was written; as `origin` where that is not known."""
        origin = self.origin(key)
        return origin if origin is None else origin.value or origin

    def with_value(self, path: Sequence[str], value: Any, origin: Origin) -> ConfigValues:
        """A copy in which `path` has this value; sections on the way are created, an earlier value is recorded as overridden."""
        values = copy.deepcopy(self.values)
        section, key = values, tuple(path)
        made: list[KeyPath] = []
        for depth, name in enumerate(path[:-1], start=1):
            if not isinstance(section.get(name), dict):
                section[name] = {}
                made.append(key[:depth])
            section = section[name]
        existed = path[-1] in section
        override = Override(".".join(path), section.get(path[-1]), self.origin(key), value, origin)
        section[path[-1]] = value
        replaced = (made or [key])[0]
        origins = {place: at for place, at in self.origins.items() if place[: len(replaced)] != replaced}
        origins.update(dict.fromkeys((*made, key), origin))
        overrides = (*self.overrides, override) if existed else self.overrides
        return replace(self, values=values, origins=origins, overrides=overrides)

    @staticmethod
    def from_dict(config: Mapping[str, Any]) -> ConfigValues:
        """Values without origins, from a dictionary of Python values; `-` in keys becomes `_`."""
        return ConfigValues({str(key).replace("-", "_"): value for key, value in config.items()})


def quote(value: Any, *, limit: int = 90) -> str:
    """A value as it would be written in a config, shortened when long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
