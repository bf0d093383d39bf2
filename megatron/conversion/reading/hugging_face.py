"""Models of Hugging Face transformers in a directory (`config.json` and files of weights) as tensors under our names, read one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megatron.checkpointing.inspecting.safetensors_file import DTYPES
from megatron.checkpointing.names import WEIGHT
from megatron.checkpointing.state_file import Shapes
from megatron.conversion.mapping.architecture import Architecture
from megatron.conversion.mapping.choose import family_of
from megatron.conversion.mapping.family import Family, TensorRule
from megatron.conversion.reading.weight_files import Shape, open_weight_files, read_json
from megatron.errors import CheckpointError
from megatron.foreign import shortened

CONFIG = "config.json"
_ADAPTER = "adapter_config.json"
_HEAD = "head.final_linear"
_EMBEDDING = "embedding.word_embeddings"


class HuggingFaceSource:
    """The weights of `directory` under our names. config: the content of its `config.json`; rules: how the tensors of both belong together.

    Raises CheckpointError when the model is of no family that is known, has a setting that cannot be expressed, or when the files do not
    hold exactly the tensors that it has.
    """

    def __init__(self, directory: Path, *, trusted: bool = False) -> None:
        self.directory = directory
        self.config = _read_config(directory)
        self.family, self.architecture = _understood(directory, self.config)
        self.description = f"{directory} (a {_class_of(self.config, self.family)} of Hugging Face transformers)"
        self.rules: Mapping[str, TensorRule] = {
            f"{rule.ours}/{WEIGHT}": rule for rule in self.family.rules(self.architecture)
        }
        self.shapes: Shapes = {name: rule.shape for name, rule in self.rules.items()}
        self._files = open_weight_files(directory, trusted=trusted)
        self._names = self._names_in_files()
        self._check_tied_copy()

    def read(self, name: str) -> Tensor:
        """A full tensor on the CPU, as it is stored, put together from theirs. Raises KeyError, and CheckpointError when a file is damaged."""
        rule = self.rules[name]
        return rule.packing.pack([self._files.read(self._names[theirs]) for theirs in rule.theirs])

    def _names_in_files(self) -> dict[str, str]:
        """Of each tensor of theirs, its name in the files, which may lack the family's prefix. Raises CheckpointError unless all fit."""
        wanted = {name: shape for rule in self.rules.values() for name, shape in rule.their_shapes.items()}
        names: dict[str, str] = {}
        unknown = {}
        optional = {self._tied_copy} if self._tied_copy else set()
        for found, shape in self._files.shapes.items():
            name = next(
                (name for name in (found, self.family.prefix + found) if name in wanted or name in optional), None
            )
            if name is not None and name not in names:
                names[name] = found
            elif not any(map(self.family.is_buffer, (found, self.family.prefix + found))):
                unknown[found] = shape
        missing = {name: shape for name, shape in wanted.items() if name not in names}
        shapes = self._files.shapes
        other = [
            f"{found} is {list(shapes[found])} and by {CONFIG} {list(wanted[name])}"
            for name, found in names.items()
            if name in wanted and shapes[found] != wanted[name]
        ]
        findings = [_count(missing, "missing"), _count(unknown, "not known there")]
        if other:
            findings.append(f"{len(other)} {'has' if len(other) == 1 else 'have'} another shape ({shortened(other)})")
        if any(findings):
            raise CheckpointError(
                f"{self.description} does not hold exactly the tensors of its {CONFIG}: {', '.join(filter(None, findings))}"
                f"{self._advice(missing)}"
            )
        unreadable = [
            f"{found} ({self._files.dtypes[found]})"
            for found in names.values()
            if self._files.dtypes[found] not in DTYPES
        ]
        if unreadable:
            raise CheckpointError(
                f"{self.description} holds tensors of other types than {', '.join(DTYPES)}: {shortened(unreadable)}; weights that were "
                "quantized cannot be trained"
            )
        return names

    def _advice(self, missing: Mapping[str, Shape]) -> str:
        if set(missing) and set(missing) <= {f"{name}.weight" for name in self._theirs(_HEAD)}:
            return "; it was saved without its output layer, which a trained model needs"
        return ""

    @property
    def _tied_copy(self) -> str | None:
        """What the files of a tied model may hold a second time: the embedding as weight of the output layer."""
        tied = not self.architecture.no_weight_tying and self.architecture.train_impl != "rm"
        return next((f"{name}.weight" for name in self._theirs(_HEAD)), None) if tied else None

    def _theirs(self, ours: str) -> tuple[str, ...]:
        return next((module.theirs for module in self.family.modules if module.ours == ours), ())

    def _check_tied_copy(self) -> None:
        copy = self._names.get(self._tied_copy or "")
        if copy is None:
            return
        embedding = self._names[f"{self._theirs(_EMBEDDING)[0]}.weight"]
        ours, theirs = self._files.read(embedding), self._files.read(copy)
        if ours.shape != theirs.shape or not torch.equal(ours, theirs):
            raise CheckpointError(
                f"{self.description} has tied weights by its {CONFIG}, but {copy} differs from {embedding}: "
                f'if the model has an output layer of its own, set "tie_word_embeddings" to false in {CONFIG}'
            )


def _read_config(directory: Path) -> dict[str, Any]:
    if (directory / _ADAPTER).is_file():
        raise CheckpointError(
            f"{directory} is an adapter ({_ADAPTER}), changes to another model's weights: merge it into that model and save the whole "
            "(merge_and_unload in PEFT)"
        )
    path = directory / CONFIG
    if not path.is_file():
        raise CheckpointError(f"{directory} has no {CONFIG}, which says what model its weights are of")
    config = read_json(path)
    quantization = config.get("quantization_config") or config.get("compression_config")
    if quantization:
        method = quantization.get("quant_method", "unknown") if isinstance(quantization, dict) else quantization
        raise CheckpointError(
            f"{directory} is quantized (quantization_config in its {CONFIG}, method {method}), and quantized weights cannot be trained: "
            "give the model it was made from"
        )
    return config


def _understood(directory: Path, config: Mapping[str, Any]) -> tuple[Family, Architecture]:
    try:
        family = family_of(config)
        return family, family.architecture(config)
    except CheckpointError as error:
        raise CheckpointError(f"{directory}: {error}") from error


def _class_of(config: Mapping[str, Any], family: Family) -> str:
    return ", ".join(config.get("architectures") or [family.causal])


def _count(tensors: Mapping[str, Shape], what: str) -> str:
    if not tensors:
        return ""
    shown = shortened([f"{name} {list(shape)}" for name, shape in tensors.items()])
    return f"{len(tensors)} {'is' if len(tensors) == 1 else 'are'} {what} ({shown})"
