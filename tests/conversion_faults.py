"""Mistakes that converters of models make, each planted by changing one thing in ours: what the tests of conversions must see caught.

A mistake in the table of a family is made alike in both directions, so that nothing but the numbers of another program can show it; the
others spoil what is read or written in one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from megatron.components import FAMILIES
from megatron.conversion import export, export_config, own_checkpoint, write
from megatron.conversion.architecture import Architecture
from megatron.conversion.family import Family, Module, TensorRule
from megatron.conversion.hf_directory import HuggingFaceSource
from megatron.conversion.settings import Row, Table
from megatron.neox_arguments import NeoXArgs
from tests.hugging_face_models import MODELS

Plant = Callable[[pytest.MonkeyPatch, str], None]
"""Makes the mistake for as long as the patch lasts, in the family of a model of MODELS where it is one of a family."""
Keys = dict[str, Any]
Change = Callable[[Tensor], Tensor]


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


def config_with(**keys: Any) -> Plant:
    """Other keys in the `config.json` that is written; `...` = left out."""

    def plant(patch: pytest.MonkeyPatch, model: str) -> None:
        write_json = export_config._write

        def wrong(path: Path, content: Keys) -> None:
            if path.name == export_config.CONFIG:
                content = {key: value for key, value in {**content, **keys}.items() if value is not ...}
            write_json(path, content)

        patch.setattr(export_config, "_write", wrong)

    return plant


def read_of_the_run(**settings: Any) -> Plant:
    """Settings of a run's architecture that are taken for others when its checkpoint is opened."""

    def plant(patch: pytest.MonkeyPatch, model: str) -> None:
        of_args = own_checkpoint.architecture_of

        def wrong(args: NeoXArgs, *, vocab_size: int) -> Architecture:
            return replace(of_args(args, vocab_size=vocab_size), **settings)

        patch.setattr(own_checkpoint, "architecture_of", wrong)

    return plant


def our_keys_with(module: ModuleType, change: Callable[[Keys], Keys]) -> Plant:
    """Other keys of ours for an architecture, where a module asks for them."""

    def plant(patch: pytest.MonkeyPatch, model: str) -> None:
        config_keys: Callable[[Architecture], Keys] = vars(module)["config_keys"]
        patch.setattr(module, "config_keys", lambda architecture: change(config_keys(architecture)))

    return plant


def written(name: str, change: Change) -> Plant:
    """Other values of a tensor of theirs when it is written."""

    def plant(patch: pytest.MonkeyPatch, model: str) -> None:
        their_tensors = export._their_tensors

        def wrong(*arguments: Any) -> Iterator[tuple[str, Tensor]]:
            for found, tensor in their_tensors(*arguments):
                yield found, change(tensor) if found == name else tensor

        patch.setattr(export, "_their_tensors", wrong)

    return plant


def stale_file(patch: pytest.MonkeyPatch, model: str) -> None:
    """A second file, with a tensor that the first one has."""
    write_shards = export.write_shards

    def wrong(directory: Path, *arguments: Any) -> None:
        write_shards(directory, *arguments)
        name, tensor = next(iter(load_file(directory / "model.safetensors").items()))
        save_file({name: torch.zeros_like(tensor)}, directory / "model-00002-of-00002.safetensors")

    patch.setattr(export, "write_shards", wrong)


def file_with(change: Callable[[dict[str, Tensor]], Any]) -> Plant:
    """Other tensors in the file of weights once it was written and compared."""

    def plant(patch: pytest.MonkeyPatch, model: str) -> None:
        read_back = export._read_back

        def wrong(directory: Path, *arguments: Any) -> None:
            read_back(directory, *arguments)
            file = directory / "model.safetensors"
            tensors = load_file(file)
            change(tensors)
            save_file(tensors, file, metadata={"format": "pt"})

        patch.setattr(export, "_read_back", wrong)

    return plant


def in_file(name: str, change: Change) -> Plant:
    """Other values of one tensor of theirs in the file."""
    return file_with(lambda tensors: tensors.update({name: change(tensors[name])}))


def read(name: str, change: Change) -> Plant:
    """Other values of a parameter of ours when it is read from a directory of theirs."""

    def plant(patch: pytest.MonkeyPatch, model: str) -> None:
        read_tensor = HuggingFaceSource.read

        def wrong(self: HuggingFaceSource, found: str) -> Tensor:
            tensor = read_tensor(self, found)
            return change(tensor) if found == f"{name}/weight" else tensor

        patch.setattr(HuggingFaceSource, "read", wrong)

    return plant


def in_checkpoint(name: str, change: Change) -> Plant:
    """Other values of a parameter of ours when it is written into a checkpoint."""

    def plant(patch: pytest.MonkeyPatch, model: str) -> None:
        resolve = write._Reading.resolve_data

        def wrong(self: Any, item: Any) -> Any:
            tensor = resolve(self, item)
            assert isinstance(tensor, Tensor)
            return change(tensor) if item.index.fqn == f"{name}/weight" else tensor

        patch.setattr(write._Reading, "resolve_data", wrong)

    return plant
