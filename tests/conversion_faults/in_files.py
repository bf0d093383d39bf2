"""Mistakes in what is written or read: settings of one side or the other, and tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from megatron.conversion.converting import write
from megatron.conversion.export import config as export_config
from megatron.conversion.export import weights as export
from megatron.conversion.mapping.architecture import Architecture
from megatron.conversion.reading import own_checkpoint
from megatron.conversion.reading.hugging_face import HuggingFaceSource
from megatron.neox_arguments import NeoXArgs
from tests.conversion_faults.in_families import Keys, Plant

Change = Callable[[Tensor], Tensor]


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
