"""The rows of a family's table of settings: how a `config.json` says what our keys say, read in both directions.

A row gives keys of `config.json` for an architecture, and values of the architecture for a `config.json`. Nothing is dropped: what a row
cannot say is refused, a key of theirs that no row knows is refused unless it is off or harmless, and every translation is translated back and compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from megatron.conversion.mapping.architecture import Architecture
from megatron.conversion.mapping.harmless import HARMLESS
from megatron.errors import CheckpointError

Config = Mapping[str, Any]
REQUIRED = object()
"""The default of a key that every `config.json` must have."""


class Untranslatable(Exception):
    """A sentence about each setting that the other side cannot express (`args`)."""

    def __str__(self) -> str:
        return "; ".join(self.args)


class Row(Protocol):
    """One line of a table; `keys` are the keys of `config.json` that it reads."""

    @property
    def keys(self) -> tuple[str, ...]: ...

    def to_theirs(self, architecture: Architecture) -> dict[str, Any]:
        """Keys of `config.json`. Raises Untranslatable."""
        ...

    def to_ours(self, config: Config) -> dict[str, Any]:
        """Values of the architecture. Raises Untranslatable."""
        ...


@dataclass(frozen=True)
class Same:
    """A number or a truth value with another name. default: what transformers takes where the key is missing; a callable is asked with the `config.json`."""

    ours: str
    theirs: str
    default: Any = REQUIRED

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.theirs,)

    def to_theirs(self, architecture: Architecture) -> dict[str, Any]:
        return {self.theirs: getattr(architecture, self.ours)}

    def to_ours(self, config: Config) -> dict[str, Any]:
        return {self.ours: value_of(config, self.theirs, self.default)}


@dataclass(frozen=True)
class Opposite(Same):
    """A truth value that says the opposite of ours (`tie_word_embeddings` and `no_weight_tying`)."""

    def to_theirs(self, architecture: Architecture) -> dict[str, Any]:
        return {self.theirs: not getattr(architecture, self.ours)}

    def to_ours(self, config: Config) -> dict[str, Any]:
        return {self.ours: not value_of(config, self.theirs, self.default)}


@dataclass(frozen=True)
class Always:
    """What every model of the family has, without a key for it: values, or a function that finds them in the `config.json`."""

    values: Mapping[str, Any] | Callable[[Config], Mapping[str, Any]]
    keys: tuple[str, ...] = ()

    def to_theirs(self, architecture: Architecture) -> dict[str, Any]:
        if callable(self.values):
            return {}  # another value shows when the result is translated back
        problems = [
            f"{name} {getattr(architecture, name)!r} (it has {value!r})"
            for name, value in self.values.items()
            if getattr(architecture, name) != value
        ]
        if problems:
            raise Untranslatable(*problems)
        return {}

    def to_ours(self, config: Config) -> dict[str, Any]:
        return dict(self.values(config) if callable(self.values) else self.values)


@dataclass(frozen=True)
class Fixed:
    """A key of theirs whose other values we cannot express."""

    theirs: str
    value: Any
    default: Any = REQUIRED

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.theirs,)

    def to_theirs(self, architecture: Architecture) -> dict[str, Any]:
        return {self.theirs: self.value}

    def to_ours(self, config: Config) -> dict[str, Any]:
        found = value_of(config, self.theirs, self.value if self.default is REQUIRED else self.default)
        if found != self.value:
            raise Untranslatable(f"{self.theirs} is {found!r}, and only {self.value!r} can be expressed here")
        return {}


@dataclass(frozen=True)
class Choice:
    """A key of theirs each of whose values stands for values of ours. Of several that say the same the first is written."""

    theirs: str
    choices: Mapping[Any, Mapping[str, Any]]
    default: Any = REQUIRED

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.theirs,)

    def to_theirs(self, architecture: Architecture) -> dict[str, Any]:
        for theirs, ours in self.choices.items():
            if all(getattr(architecture, name) == value for name, value in ours.items()):
                return {self.theirs: theirs}
        names = tuple(next(iter(self.choices.values())))
        found = ", ".join(f"{name} {getattr(architecture, name)!r}" for name in names)
        allowed = (", ".join(f"{name} {ours[name]!r}" for name in names) for ours in self.choices.values())
        raise Untranslatable(f"it has no {found}, only {' or '.join(dict.fromkeys(allowed))}")

    def to_ours(self, config: Config) -> dict[str, Any]:
        found = value_of(config, self.theirs, self.default)
        if found not in self.choices:
            allowed = ", ".join(repr(value) for value in self.choices)
            raise Untranslatable(f"{self.theirs} is {found!r}, and only {allowed} can be expressed here")
        return dict(self.choices[found])


@dataclass(frozen=True)
class Computed:
    """Keys that say something together, or in a way that no other family has. ours: from a `config.json` to values of the architecture;
    theirs: from an architecture to the keys. Both raise Untranslatable."""

    keys: tuple[str, ...]
    ours: Callable[[Config], Mapping[str, Any]]
    theirs: Callable[[Architecture], Mapping[str, Any]]

    def to_theirs(self, architecture: Architecture) -> dict[str, Any]:
        return dict(self.theirs(architecture))

    def to_ours(self, config: Config) -> dict[str, Any]:
        return dict(self.ours(config))


@dataclass(frozen=True)
class Table:
    """All rows of a family, and the keys of theirs that change nothing (`ignored`, beside those that are so everywhere)."""

    rows: tuple[Row, ...]
    ignored: frozenset[str] = field(default_factory=frozenset)

    def to_theirs(self, architecture: Architecture) -> dict[str, Any]:
        """The `config.json` of an architecture, as far as the table knows it. Raises Untranslatable naming everything it cannot say."""
        config: dict[str, Any] = {}
        problems: list[str] = []
        for row in self.rows:
            try:
                config |= row.to_theirs(architecture)
            except Untranslatable as problem:
                problems += problem.args
        if problems:
            raise Untranslatable(*problems)
        return config

    def to_ours(self, config: Config) -> dict[str, Any]:
        """Values of the architecture by name. Raises Untranslatable naming every setting that we cannot express."""
        values: dict[str, Any] = {}
        problems: list[str] = []
        for row in self.rows:
            try:
                values |= row.to_ours(config)
            except Untranslatable as problem:
                problems += problem.args
        known = {key for row in self.rows for key in row.keys}
        problems += [
            f"{key} is {value!r}, a setting that is not known here"
            for key, value in config.items()
            if key not in known and key not in self.ignored and key not in HARMLESS and not _is_usual(key, value)
        ]
        if problems:
            raise Untranslatable(*problems)
        return values


def value_of(config: Config, key: str, default: Any) -> Any:
    """The value of a key, or its default, which may be a function of the `config.json`; a key that is None counts as missing where there is a default."""
    value = config.get(key)
    if value is not None:
        return value
    if default is REQUIRED:
        raise CheckpointError(f'config.json has no "{key}"')
    return default(config) if callable(default) else default


def _is_usual(key: str, value: Any) -> bool:
    """Whether a setting is off, or on for a switch that is on in all models which can be expressed."""
    return value is None or (value is True if key in _SWITCHED_ON else value is False or value in ("", (), [], {}))


_SWITCHED_ON = {"is_causal"}
