"""The tensors in the files of a checkpoint of GPT-NeoX, layer by layer and rank by rank. The files of one layer are open at a time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from megatron.conversion.legacy.layout import Layout
from megatron.conversion.legacy.names import is_parameter
from megatron.conversion.reading.pickled import read_pickled
from megatron.errors import CheckpointError

Tensors = Mapping[str, Tensor]
_SEQUENTIAL = "sequential."
_IN_SEQUENCE = re.compile(r"sequential\.\d+\..+")


class LayerFiles:
    """trusted: build whatever the files name. Raises CheckpointError for files that cannot be read, or hold no weights."""

    def __init__(self, layout: Layout, *, trusted: bool) -> None:
        self.layout = layout
        self._trusted = trusted
        self._open: tuple[int, list[Tensors]] | None = None
        self._of_ranks = [self._sequential(file) for file in layout.rank_files()] if layout.is_sequential else []

    def layers(self) -> list[int]:
        """The numbers of the layers with tensors."""
        if not self.layout.is_sequential:
            return list(self.layout.layers)
        return sorted({int(name.partition(".")[0]) for tensors in self._of_ranks for name in tensors})

    def ranks(self, layer: int) -> list[Tensors]:
        """The tensors of a layer by name, for each tensor-parallel rank; mapped where the format of the files allows it."""
        if self.layout.is_sequential:
            return [_of_layer(tensors, layer) for tensors in self._of_ranks]
        if self._open is None or self._open[0] != layer:
            self._open = None  # never two layers at a time
            self._open = layer, [self._layer(file) for file in self.layout.files(layer)]
        return self._open[1]

    def shards(self, name: str) -> list[Tensor]:
        """What each rank has of a tensor, by its name with the number of its layer: "2.mlp.w1.weight"."""
        layer, _, path = name.partition(".")
        return [tensors[path] for tensors in self.ranks(int(layer))]

    def parameters(self, rank: int) -> dict[str, Tensor]:
        """Everything that a rank has of the model in the order of the layers, without tables of frequencies, by name with the number of the layer."""
        return {
            f"{layer}.{name}": tensor
            for layer in self.layers()
            for name, tensor in self.ranks(layer)[rank].items()
            if is_parameter(name)
        }

    def file(self, layer: int, rank: int) -> Path:
        """The file that holds the tensors of a layer and rank."""
        return self.layout.files(layer)[rank]

    def _layer(self, file: Path) -> Tensors:
        content = read_pickled(file, trusted=self._trusted)
        if not isinstance(content, Mapping):
            raise CheckpointError(f"{file} holds a {type(content).__name__}, not tensors by name")
        return _tensors(file, content.items())

    def _sequential(self, file: Path) -> Tensors:
        content = read_pickled(file, trusted=self._trusted)
        module = content.get("module") if isinstance(content, Mapping) else None
        if not isinstance(module, Mapping) or not module:
            raise CheckpointError(
                f"{file} holds no weights: they are in files layer_...-model_...-model_states.pt, which are missing; copy them too"
            )
        foreign = next((name for name in module if not _IN_SEQUENCE.fullmatch(str(name))), None)
        if foreign is not None:
            raise CheckpointError(
                f'{file} holds "{foreign}": this is no checkpoint of GPT-NeoX, whose weights are called sequential.LAYER.NAME'
            )
        return _tensors(file, ((name.removeprefix(_SEQUENTIAL), value) for name, value in module.items()))


def _tensors(file: Path, items: Iterable[tuple[object, object]]) -> Tensors:
    """All values, which are tensors but for the states of Transformer Engine."""
    tensors = {}
    for name, value in items:
        if isinstance(value, Tensor):
            tensors[str(name)] = value.detach()
        elif not str(name).endswith("_extra_state"):
            raise CheckpointError(f'{file} holds "{name}", a {type(value).__name__} where a tensor belongs')
    return tensors


def _of_layer(tensors: Tensors, layer: int) -> Tensors:
    prefix = f"{layer}."
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
