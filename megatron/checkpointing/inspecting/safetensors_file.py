"""Writes a file of the safetensors format, tensor by tensor, so that it may be larger than memory.

The format: 8 bytes, little endian, the length of a JSON object that follows, padded with blanks to a multiple of 8: by tensor its dtype,
shape, and where its bytes begin and end behind the object; under `__metadata__` texts by name. Then the values, row by row, without gaps.
(https://github.com/huggingface/safetensors)
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import torch
from torch import Tensor

from megatron.checkpointing.inspecting.blocks import blocks
from megatron.checkpointing.inspecting.contents import ITEM_BYTES, SavedTensor
from megatron.errors import CheckpointError

DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
"""The format's names of dtypes."""


@dataclass(frozen=True)
class Written:
    """A tensor of the file: its name there and its dtype, which may be another than the one of the tensor it is made of."""

    name: str
    source: SavedTensor
    dtype: str

    @property
    def size(self) -> int:
        """Bytes of the values."""
        return self.source.elements * ITEM_BYTES[self.dtype]


def aligned(tensors: Sequence[Written]) -> list[Written]:
    """An order in which every value begins at a multiple of its size: the widest first."""
    return sorted(tensors, key=lambda tensor: (-ITEM_BYTES[tensor.dtype], tensor.source.name))


def header(tensors: Sequence[Written], metadata: Mapping[str, str]) -> bytes:
    """The beginning of the file of these tensors, in this order."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for tensor in tensors:
        begin, end = end, end + tensor.size
        entries[tensor.name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.source.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def write_values(file: BinaryIO, tensor: Tensor, target: Written, *, option: str = "--dtype") -> str:
    """Append the values in the dtype of `target`, which the user chooses by `option`; the SHA-256 of the bytes.

    Raises CheckpointError when that dtype cannot hold one of them.
    """
    digest = hashlib.sha256()
    for converted in _converted(tensor, target, option):
        content = converted.view(torch.uint8).numpy().data
        file.write(content)
        digest.update(content)
    return digest.hexdigest()


def sha256_of_values(tensor: Tensor) -> str:
    """The SHA-256 of a tensor's bytes, row by row."""
    digest = hashlib.sha256()
    for (block,) in blocks(tensor):
        digest.update(block.contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _became_infinite(converted: Tensor, block: Tensor) -> bool:
    infinite = converted.isinf()
    # Hardly ever anything is, and to compare with the values before would take most of the time of writing.
    return bool(infinite.any()) and bool((infinite & block.isfinite()).any())


def _converted(tensor: Tensor, target: Written, option: str) -> Iterator[Tensor]:
    dtype = getattr(torch, target.dtype)
    for (block,) in blocks(tensor):
        converted = block.to(dtype)
        if dtype != tensor.dtype and _became_infinite(converted, block):
            largest = float(block[block.isfinite()].abs().max())
            raise CheckpointError(
                f"{target.name} has a value of {largest:.6g}, beyond the {torch.finfo(dtype).max:.6g} that {target.dtype} holds: "
                f"choose another {option}, such as bf16"
            )
        yield converted.contiguous()
