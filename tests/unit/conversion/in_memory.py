"""Models of ours that are opened without files: every parameter is random, biases and gains included."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from megatron.conversion.mapping.architecture import architecture_of
from megatron.conversion.opening import OpenedModel
from megatron.model.gpt import build_layer_specs
from megatron.model.sequential import SequentialModel
from megatron.model.spec import BuildContext
from tests.unit.model.builders import VARIANTS, VOCAB_SIZE, build_args, parameters_by_name, perturb


class MemorySource:
    """A TensorSource of tensors in memory. reads: the names that were read, in order."""

    description = "a model in memory"

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = dict(tensors)
        self.reads: list[str] = []

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}

    def read(self, name: str) -> Tensor:
        self.reads.append(name)
        return self.tensors[name]


def weights_of(settings: Mapping[str, Any], *, rows: int = VOCAB_SIZE) -> dict[str, Tensor]:
    """Random weights of the small model with these settings, by the names of checkpoints; rows: of the vocabulary."""
    specs = build_layer_specs(build_args(**settings), vocab_size=rows, padded_vocab_size=rows)
    model = SequentialModel(specs, BuildContext(), seed=None)
    perturb(model)
    return {f"{name}/weight": parameter.detach() for name, parameter in parameters_by_name(model).items()}


def opened(variant: str = "llama", *, rows: int = VOCAB_SIZE, saved: bool = False, **settings: Any) -> OpenedModel:
    """A model of VARIANTS, with further settings. saved: whether the settings of its run are known."""
    wanted = {**VARIANTS[variant], **settings}
    args = build_args(**wanted)
    architecture = architecture_of(args, vocab_size=rows)
    source = MemorySource(weights_of(wanted, rows=rows))
    return OpenedModel(source, architecture, source.description, Path("memory"), args if saved else None)
