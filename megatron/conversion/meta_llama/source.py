"""Llama as Meta publishes it, `params.json` and `consolidated.{rank}.pth`, as full tensors under our names.

A file is what one tensor-parallel rank had. The embedding is cut along its columns in Llama 1 and 2 and along its rows in Llama 3, which the
shape tells.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from megatron.checkpointing.names import WEIGHT, is_weight, parameter_of
from megatron.checkpointing.state_file import Shapes
from megatron.conversion.mapping.architecture import Architecture
from megatron.conversion.mapping.packing import Heads, build_packing
from megatron.conversion.mapping.shapes import parameter_shapes
from megatron.conversion.meta_llama.params import PARAMS, architecture_of_params, read_params
from megatron.conversion.meta_llama.places import EMBEDDING, OUTPUT, places
from megatron.conversion.reading.pickled import read_pickled
from megatron.errors import CheckpointError
from megatron.foreign import shortened

_FILE = re.compile(r"consolidated\.(\d+)\.pth")
_FREQUENCIES = re.compile(r"(layers\.\d+\.attention\.inner_attention\.)?rope\.freqs")


class MetaLlamaSource:
    """`TensorSource` of such a directory; files are mapped, and a tensor is in memory while it is read.

    trusted: build whatever the files name. Raises CheckpointError when files are missing or hold another model than `params.json` says.
    """

    def __init__(self, directory: str | Path, *, trusted: bool = False) -> None:
        self._directory = Path(directory)
        self.params = read_params(self._directory)
        self._ranks = [_tensors(file, trusted=trusted) for file in _files(self._directory)]
        self.architecture: Architecture = self._architecture()
        self._parameters = {parameter.name: parameter.shape for parameter in parameter_shapes(self.architecture)}
        self._places = dict(places(self.architecture.num_layers, self._embedding_dim(), is_tied=self._is_tied()))
        self._heads = Heads(
            self.architecture.num_attention_heads,
            self.architecture.num_kv_heads,
            self.architecture.head_dim,
            rotated=self.architecture.head_dim,
        )
        self._check()

    @property
    def description(self) -> str:
        """For messages."""
        return f"{self._directory} (Llama of Meta, {len(self._ranks)} file{'s' * (len(self._ranks) != 1)})"

    @property
    def shapes(self) -> Shapes:
        """Of all weights."""
        return {f"{name}/{WEIGHT}": shape for name, shape in self._parameters.items()}

    def read(self, name: str) -> Tensor:
        """A weight as it is stored (Meta: bf16, fp16). Raises KeyError when there is none of this name."""
        parameter = parameter_of(name)
        if not is_weight(name) or parameter not in self._parameters:
            raise KeyError(name)
        place = self._places[parameter]
        packing = build_packing(place.cut, self._parameters[parameter][0], self._heads)
        return packing.pack([self._joined(theirs, place.dim) for theirs in place.theirs])

    def _joined(self, name: str, dim: int | None) -> Tensor:
        parts = [tensors[name] for tensors in self._ranks]
        return parts[0] if dim is None or len(parts) == 1 else torch.cat(parts, dim=dim)

    def _rows(self, name: str) -> int:
        return sum(int(tensors[name].shape[0]) for tensors in self._ranks)

    def _architecture(self) -> Architecture:
        needed = (EMBEDDING, "norm.weight", "layers.0.feed_forward.w1.weight")
        absent = [name for name in needed for tensors in self._ranks if name not in tensors]
        if absent:
            raise CheckpointError(f"{self._directory} has no tensor {absent[0]}: it is not a Llama model of Meta")
        has_output = all(OUTPUT in tensors for tensors in self._ranks)
        rows = self._rows(OUTPUT) if has_output else int(self._ranks[0][EMBEDDING].shape[0])
        width = self._rows("layers.0.feed_forward.w1.weight")
        return architecture_of_params(self.params, vocab_rows=rows, mlp_width=width, is_tied=self._is_tied())

    def _is_tied(self) -> bool:
        """Whether the output layer is the embedding: it is absent, or the same in one file (Llama 3.2)."""
        first = self._ranks[0]
        if OUTPUT not in first:
            return True
        embedding, output = first[EMBEDDING], first[OUTPUT]
        is_like = len(self._ranks) == 1 and embedding.shape == output.shape and torch.equal(embedding[0], output[0])
        return is_like and torch.equal(embedding, output)

    def _embedding_dim(self) -> int:
        return 0 if self._ranks[0][EMBEDDING].shape[1] == self.params["dim"] else 1

    def _check(self) -> None:
        """Everything there has its place and is of the shape that the settings ask for, and what all ranks have is the same."""
        names = {name for place in self._places.values() for name in place.theirs}
        ignored = {OUTPUT} if self._is_tied() else set()
        problems = [
            f"{name} is missing in a file" for name in sorted(names) if any(name not in rank for rank in self._ranks)
        ]
        there = sorted(set().union(*self._ranks) - names - ignored)
        problems += [f"{name} is unknown" for name in there if not _FREQUENCIES.fullmatch(name)]
        if not problems:
            problems += [problem for parameter in self._parameters for problem in self._problems(parameter)]
        if problems:
            raise CheckpointError(f"{self._directory} does not hold the model of its {PARAMS}: {shortened(problems)}")

    def _problems(self, parameter: str) -> Iterator[str]:
        place, shape = self._places[parameter], self._parameters[parameter]
        wanted = build_packing(place.cut, shape[0], self._heads).shapes(shape)
        for name, size in zip(place.theirs, wanted, strict=True):
            parts = [tensors[name] for tensors in self._ranks]
            found = list(parts[0].shape)
            if place.dim is not None:
                found[place.dim] = sum(part.shape[place.dim] for part in parts)
            elif any(not torch.equal(part, parts[0]) for part in parts):
                yield f"{name} is not the same in all files"
            if tuple(found) != size:
                yield f"{name} is {found}, not {list(size)}"


def _files(directory: Path) -> list[Path]:
    found = {int(match[1]): file for file in directory.iterdir() if (match := _FILE.fullmatch(file.name))}
    missing = sorted(set(range(max(found, default=0) + 1)) - set(found))
    if missing:
        raise CheckpointError(f"{directory} is incomplete: there is no consolidated.{missing[0]:02d}.pth")
    return [found[rank] for rank in sorted(found)]


def _tensors(file: Path, *, trusted: bool) -> Mapping[str, Tensor]:
    content = read_pickled(file, trusted=trusted)
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{file} does not hold tensors by name")
    return content
