"""The weights of a model as Hugging Face transformers keeps them, streamed: one tensor of ours is in memory at a time.

Every tensor of the source goes somewhere, every name of theirs is written once, and what was written is read back and put together again:
it must be what was read, rounded to the dtype of the files, to the bit.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from megatron.checkpointing.inspecting.blocks import blocks
from megatron.checkpointing.inspecting.contents import SavedTensor
from megatron.checkpointing.inspecting.safetensors_file import Written, sha256_of_values
from megatron.checkpointing.names import WEIGHT, dtype_name, is_weight, parameter_of
from megatron.conversion.export.shards import ShardReader, plan_shards, write_shards
from megatron.conversion.mapping.architecture import Architecture
from megatron.conversion.mapping.family import Family, TensorRule
from megatron.conversion.source import TensorSource
from megatron.errors import CheckpointError

SHARD_BYTES = 5_000_000_000


def export_weights(
    source: TensorSource,
    architecture: Architecture,
    family: Family,
    directory: Path,
    *,
    dtype: torch.dtype,
    shard_bytes: int = SHARD_BYTES,
) -> int:
    """Write the weights of `source` to `directory`, an existing empty one, rounded to `dtype`; the bytes of the values.

    Raises CheckpointError when the tensors are not those of the architecture, a value does not fit the dtype, the family has no place for a
    parameter, or the disk has no room.
    """
    rules = family.rules(architecture)
    check_shapes(source, rules)
    planned = _planned(rules, dtype)
    total = sum(tensor.size for tensor in planned)
    free = shutil.disk_usage(directory).free
    if free < total:
        raise CheckpointError(
            f"{directory.parent} needs {total:,} bytes for the weights, and its disk has {free:,} left"
        )
    digests: dict[str, str] = {}
    write_shards(
        directory, plan_shards(planned, shard_bytes=shard_bytes), _their_tensors(source, rules, dtype, digests)
    )
    _read_back(directory, rules, digests)
    return total


def stored_dtype(source: TensorSource) -> torch.dtype:
    """The dtype of a source's weights: that of its smallest matrix."""
    matrices = [name for name, shape in source.shapes.items() if is_weight(name) and len(shape) == 2]
    return source.read(min(matrices, key=lambda name: math.prod(source.shapes[name]))).dtype


def check_shapes(source: TensorSource, rules: Sequence[TensorRule]) -> None:
    """Raise CheckpointError unless the weights of `source` are those of the rules, each of its shape."""
    wanted = {rule.ours: rule.shape for rule in rules}
    found = {parameter_of(name): tuple(shape) for name, shape in source.shapes.items() if is_weight(name)}
    lacking, beyond = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if lacking:
        raise CheckpointError(f"{source.description} lacks {_some(lacking)}, which the settings ask for")
    if beyond:
        raise CheckpointError(f"{source.description} has {_some(beyond)}, which the settings know nothing of")
    for name, shape in wanted.items():
        if found[name] != shape:
            raise CheckpointError(
                f"{source.description} has {name} of shape {list(found[name])}, and the settings ask for {list(shape)}"
            )


def _planned(rules: Sequence[TensorRule], dtype: torch.dtype) -> list[Written]:
    stored = dtype_name(dtype)
    planned = [
        Written(name, SavedTensor(name, shape, stored), stored)
        for rule in rules
        for name, shape in rule.their_shapes.items()
    ]
    assert len({tensor.name for tensor in planned}) == len(planned), "two tensors of one name"
    return planned


def _their_tensors(
    source: TensorSource, rules: Sequence[TensorRule], dtype: torch.dtype, digests: dict[str, str]
) -> Iterator[tuple[str, Tensor]]:
    """Their tensors by name; of each tensor of ours the hash of its rounded values goes to `digests`."""
    for rule in rules:
        ours = source.read(f"{rule.ours}/{WEIGHT}")
        digests[rule.ours] = _sha256_of_rounded(ours, dtype)
        yield from zip(rule.theirs, rule.packing.unpack(ours), strict=True)
        del ours  # before the next one is read


def _sha256_of_rounded(tensor: Tensor, dtype: torch.dtype) -> str:
    digest = hashlib.sha256()
    for (block,) in blocks(tensor):
        digest.update(block.to(dtype).contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read_back(directory: Path, rules: Sequence[TensorRule], digests: Mapping[str, str]) -> None:
    written = ShardReader(directory)
    assert set(written) == {name for rule in rules for name in rule.theirs}, "other tensors than planned"
    for rule in rules:
        if sha256_of_values(rule.packing.pack([written[name] for name in rule.theirs])) != digests[rule.ours]:
            raise CheckpointError(
                f"{', '.join(rule.theirs)} were not written as they should be: {rule.ours} is read back otherwise"
            )


def _some(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
