"""Weights in the files that Hugging Face transformers reads: safetensors, several with an index where one would be too large.

What is in which file is known before the first tensor is read, so tensors are written one after another as they come.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from torch import Tensor

from megatron.atomic import atomic_file
from megatron.checkpointing.files import write_durably
from megatron.checkpointing.inspecting.safetensors_file import Written, header, write_values

INDEX = "model.safetensors.index.json"
METADATA = {"format": "pt"}
"""Tells other programs that shapes are those of torch."""
OPTION = "--precision"


@dataclass(frozen=True)
class Shard:
    """A file and its tensors, in order."""

    name: str
    tensors: tuple[Written, ...]

    @property
    def size(self) -> int:
        """Bytes of the values."""
        return sum(tensor.size for tensor in self.tensors)


def plan_shards(tensors: Sequence[Written], *, shard_bytes: int) -> list[Shard]:
    """Tensors in files of at most `shard_bytes` of values, in the order given; one that is larger has a file of its own."""
    groups: list[list[Written]] = [[]]
    room = shard_bytes
    for tensor in tensors:
        if groups[-1] and tensor.size > room:
            groups.append([])
            room = shard_bytes
        groups[-1].append(tensor)
        room -= tensor.size
    if len(groups) == 1:
        return [Shard("model.safetensors", tuple(groups[0]))]
    count = len(groups)
    return [
        Shard(f"model-{number:05}-of-{count:05}.safetensors", tuple(group)) for number, group in enumerate(groups, 1)
    ]


def write_shards(directory: Path, shards: Sequence[Shard], tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Write `tensors`, which come by name in the order of the plan, and the index of several files.

    Raises CheckpointError when a value does not fit the dtype of its file.
    """
    arriving = iter(tensors)
    for shard in shards:
        with atomic_file(directory / shard.name) as file:
            file.write(header(shard.tensors, METADATA))
            for planned in shard.tensors:
                _write_next(file, planned, arriving)
    assert next(arriving, None) is None, "more tensors than planned"
    if len(shards) > 1:
        write_durably(directory / INDEX, index_of(shards))


def index_of(shards: Sequence[Shard]) -> bytes:
    """The content of the index: which file holds a tensor, and bytes of all values."""
    content = {
        "metadata": {"total_size": sum(shard.size for shard in shards)},
        "weight_map": {tensor.name: shard.name for shard in shards for tensor in shard.tensors},
    }
    return (json.dumps(content, indent=2) + "\n").encode()


class ShardReader(Mapping[str, Tensor]):
    """The tensors of a directory of such files by name, each read when it is asked for."""

    def __init__(self, directory: Path) -> None:
        from safetensors import safe_open

        self._open = safe_open
        self._files: dict[str, Path] = {}
        for path in sorted(directory.glob("*.safetensors")):
            with safe_open(path, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 (it is no mapping)
                    assert name not in self._files, f"{name} is written twice"
                    self._files[name] = path

    def __getitem__(self, name: str) -> Tensor:
        # Opened anew for each, as it maps the file into memory, whose pages would otherwise stay until the end.
        with self._open(self._files[name], framework="pt") as opened:
            tensor: Tensor = opened.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _write_next(file: BinaryIO, planned: Written, arriving: Iterator[tuple[str, Tensor]]) -> None:
    name, tensor = next(arriving)
    assert name == planned.name, f"{name} comes where {planned.name} belongs"
    assert tuple(tensor.shape) == planned.source.shape, f"{name} has another shape than planned"
    write_values(file, tensor, planned, option=OPTION)
