"""Keys of older GPT-NeoX files, translated to today's before anything else looks at them.

What a value becomes is said in legacy_rules.py. Every new key keeps the place of the older one, so messages point at the line that
was written. A key that is given under both names is one key: the later file (or the command line) wins and the override is recorded;
in one file both must agree.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

from megatron.neox_arguments.keys.types import read_number
from megatron.neox_arguments.reading.aliases import ALIASES
from megatron.neox_arguments.reading.excerpt import excerpt
from megatron.neox_arguments.reading.legacy_rules import RULES, Refused, Rule
from megatron.neox_arguments.reading.values import ConfigValues, Origin, Override, quote

DATA_LISTS = ("_data_paths", "_data_weights")
"""How keys end that give lists of datasets, with what lies beside them."""


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


@dataclass(frozen=True)
class Refusal:
    """An older key whose wish cannot be met, with the reason and what to write instead."""

    key: str
    value: Any
    origin: Origin | None
    reason: str

    def __str__(self) -> str:
        place = "" if self.origin is None else f" ({self.origin})"
        return f'"{self.key}" is {quote(self.value)}{place}: this older key is not supported; {self.reason}'


def modernise(values: ConfigValues) -> tuple[ConfigValues, tuple[Translation, ...]]:
    """The values with today's keys only, and what was translated. Keys that cannot be translated join the problems of the values."""
    modern = _settle_aliases(values)
    translations, refusals = translate(modern)
    refused = [f"{refusal}{excerpt(values.files, [refusal.origin])}" for refusal in refusals]
    handled = {item.key for item in translations} | {item.key for item in refusals}
    for key, rule in RULES.items():
        if key in handled or not rule.remains:
            modern = _without(modern, key)
    modern = replace(modern, problems=(*modern.problems, *refused))
    for translation in translations:
        rule = RULES[translation.key]
        for key, value in translation.becomes.items():
            modern = _with(modern, key, value, translation, replaces=rule.replaces or key == translation.key)
    return _settle_data(_settle_aliases(modern)), translations


def translate(
    values: ConfigValues, *, among: ConfigValues | None = None
) -> tuple[tuple[Translation, ...], tuple[Refusal, ...]]:
    """What becomes of the older keys of a configuration, and those that nothing can become of. Keys without a value are nothing.

    Values that a conversion needs besides are looked up `among` these (default: the same configuration).
    """
    found = [_apply(values, key, rule, among or values) for key, rule in RULES.items() if values.value(key) is not None]
    return (
        tuple(item for item in found if isinstance(item, Translation)),
        tuple(item for item in found if isinstance(item, Refusal)),
    )


def _apply(values: ConfigValues, key: str, rule: Rule, among: ConfigValues) -> Translation | Refusal | None:
    written, origin = values.value(key), values.origin(key)
    try:
        becomes = rule.convert(written, lambda name: read_number(among.value(name)))
    except Refused as refused:
        return Refusal(key, written, origin, str(refused))
    except TypeError:
        return Refusal(key, written, origin, "its value is not a number; remove it")
    return None if becomes is None else Translation(key, written, origin, becomes, rule.reason)


def _without(values: ConfigValues, key: str) -> ConfigValues:
    """`values` without `key`, whatever its value; the given values stay as they are."""
    *sections, name = path = tuple(key.split("."))
    written: Any = values.values
    for part in sections:
        written = written.get(part) if isinstance(written, dict) else None
    if not isinstance(written, dict) or name not in written:
        return values
    kept = copy.deepcopy(values.values)
    section: Any = kept
    for part in sections:
        section = section[part]
    del section[name]
    origins = {place: origin for place, origin in values.origins.items() if place[: len(path)] != path}
    return replace(values, values=kept, origins=origins)


def _with(values: ConfigValues, key: str, value: Any, older: Translation, *, replaces: bool) -> ConfigValues:
    """`values` with `key` set at the place of an older key, unless today's key was given later."""
    given, place = values.value(key), values.origin(key)
    origin = older.origin or Origin(f'the older key "{older.key}"')
    later = _rank(values, older.origin) - _rank(values, place)
    if given is None or (replaces and later == 0):
        return replace(values.with_value(key.split("."), value, origin), overrides=values.overrides)
    if later > 0:
        return values.with_value(key.split("."), value, origin)
    if later < 0:
        return replace(values, overrides=(*values.overrides, Override(key, value, older.origin, given, place)))
    if read_number(given) == read_number(value):
        return values
    problem = (
        f'"{older.key}"{_at(older.origin)} means {key}: {quote(value)}, but "{key}" is {quote(given)}{_at(place)}: '
        f"keep one of the two{excerpt(values.files, [older.origin, place])}"
    )
    return replace(values, problems=(*values.problems, problem))


def _settle_aliases(values: ConfigValues) -> ConfigValues:
    """Of two spellings of one key given in different places, the earlier is dropped as overridden."""
    for spellings in ALIASES.items():
        written = [(name, values.value(name), values.origin(name)) for name in spellings]
        if any(value is None for _, value, _ in written):
            continue
        earlier, later = sorted(written, key=lambda item: _rank(values, item[2]))
        if _rank(values, earlier[2]) < _rank(values, later[2]):
            override = Override(later[0], *earlier[1:], *later[1:])
            values = replace(_without(values, earlier[0]), overrides=(*values.overrides, override))
    return values


def _settle_data(values: ConfigValues) -> ConfigValues:
    """One dataset that is split, and lists of datasets, are two ways to give the same thing: the later way drops the earlier.

    Within one file they stay a conflict, which a check tells.
    """
    lists = [key for key in values.values if key.endswith(DATA_LISTS) and values.value(key) is not None]
    if values.value("data_path") is None or not lists:
        return values
    single = _rank(values, values.origin("data_path"))
    several = [_rank(values, values.origin(key)) for key in lists]
    if min(several) <= single <= max(several):
        return values
    dropped, winner = (lists, "data_path") if single > max(several) else (["data_path"], lists[0])
    for key in dropped:
        override = Override(key, values.value(key), values.origin(key), values.value(winner), values.origin(winner))
        values = replace(_without(values, key), overrides=(*values.overrides, override))
    return values


def _rank(values: ConfigValues, origin: Origin | None) -> int:
    """Position of a place in the order in which places override each other: files as given, then the command line."""
    paths = [file.path for file in values.files]
    return len(paths) if origin is None or origin.source not in paths else paths.index(origin.source)


def _at(origin: Origin | None) -> str:
    return "" if origin is None else f" ({origin})"
