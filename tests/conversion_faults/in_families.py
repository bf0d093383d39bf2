"""Mistakes in the table of a family: made alike in both directions, so that nothing but the numbers of another program can show them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from megatron.components import FAMILIES
from megatron.conversion.mapping.architecture import Architecture
from megatron.conversion.mapping.family import Family, Module, TensorRule
from megatron.conversion.mapping.settings import Row, Table
from tests.hugging_face_models import MODELS

Plant = Callable[[pytest.MonkeyPatch, str], None]
"""Makes the mistake for as long as the patch lasts, in the family of a model of MODELS where it is one of a family."""
Keys = dict[str, Any]


def in_family(change: Callable[[Family], Family]) -> Plant:
    """Another table of the model's family."""

    def plant(patch: pytest.MonkeyPatch, model: str) -> None:
        name = MODELS[model].family
        patch.setattr(FAMILIES._entries[name].target.replace(":", "."), change(FAMILIES.load(name)))

    return plant


def in_module(ours: str, **values: Any) -> Plant:
    """Another line for one module of ours."""
    return in_modules({ours: lambda module, of: replace(module, **values)})


def exchanged(one: str, other: str) -> Plant:
    """Two modules of theirs in the place of each other."""
    return in_modules(
        {
            one: lambda module, of: replace(module, theirs=of[other].theirs),
            other: lambda module, of: replace(module, theirs=of[one].theirs),
        }
    )


def in_modules(changes: Mapping[str, Callable[[Module, Mapping[str, Module]], Module]]) -> Plant:
    """Other lines for some modules of ours, made of all lines by name."""

    def change(family: Family) -> Family:
        by_name = {module.ours: module for module in family.modules}
        changed = {name: build(by_name[name], by_name) for name, build in changes.items()}
        return replace(family, modules=tuple({**by_name, **changed}.values()))

    return in_family(change)


def layers_exchanged(patch: pytest.MonkeyPatch, model: str) -> None:
    """Blocks 0 and 1 in the place of each other."""
    rules, other = Family.rules, {"0": "1", "1": "0"}

    def wrong(self: Family, architecture: Architecture) -> list[TensorRule]:
        return [
            replace(
                rule, theirs=tuple(".".join(other.get(part, part) for part in name.split(".")) for name in rule.theirs)
            )
            for rule in rules(self, architecture)
        ]

    patch.setattr(Family, "rules", wrong)


@dataclass(frozen=True)
class Misread:
    """A row that changes what it writes into a `config.json`, and what it is to read of one."""

    row: Row
    written: Callable[[Keys], Keys]
    read: Callable[[Keys], Keys]

    @property
    def keys(self) -> tuple[str, ...]:
        return self.row.keys

    def to_theirs(self, architecture: Architecture) -> Keys:
        return self.written(self.row.to_theirs(architecture))

    def to_ours(self, config: Mapping[str, Any]) -> Keys:
        return self.row.to_ours(self.read(dict(config)))


def in_row(key: str, *, written: Callable[[Keys], Keys] = lambda keys: keys, read: Callable[[Keys], Keys]) -> Plant:
    """Changes of what the row of a key of theirs writes and reads."""

    def change(family: Family) -> Family:
        assert any(key in row.keys for row in family.settings.rows)
        rows = tuple(Misread(row, written, read) if key in row.keys else row for row in family.settings.rows)
        return replace(family, settings=Table(rows, family.settings.ignored))

    return in_family(change)


def mistaken(key: str, written: Callable[[Any], Any], read: Callable[[Any], Any]) -> Plant:
    """Another value when a key is written, and the reverse when it is read, in either form of `config.json`."""

    def everywhere(convert: Callable[[Any], Any]) -> Callable[[Keys], Keys]:
        def change(config: Keys) -> Keys:
            nested = config.get("rope_parameters")
            inside = {"rope_parameters": everywhere(convert)(nested)} if nested else {}
            names = {key, {"rotary_pct": "partial_rotary_factor", "rotary_emb_base": "rope_theta"}.get(key, key)}
            return config | {name: convert(config[name]) for name in names & config.keys()} | inside

        return change

    return in_row(key, written=everywhere(written), read=everywhere(read))


def times(key: str, factor: float) -> Plant:
    """A number that is taken for one which is larger by a factor."""
    return mistaken(key, lambda value: value * factor, lambda value: value / factor)


def plus(key: str, number: int) -> Plant:
    """A number that is taken for one which is larger."""
    return mistaken(key, lambda value: value + number, lambda value: value - number)


def confused(key: str, one: Any, other: Any) -> Plant:
    """Two values of a key that are taken for each other."""
    convert = {one: other, other: one}.__getitem__
    return mistaken(key, convert, convert)


def overlooked(*keys: str) -> Plant:
    """Keys of a `config.json` that are not read, as if they were not there."""
    return in_row(keys[0], read=lambda config: {key: value for key, value in config.items() if key not in keys})
