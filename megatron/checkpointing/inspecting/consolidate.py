"""All weights of a checkpoint in one safetensors file, which other programs read."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from megatron.atomic import atomic_file
from megatron.checkpointing.files import sha256_of
from megatron.checkpointing.inspecting.contents import Contents
from megatron.checkpointing.inspecting.safetensors_file import Written, aligned, header, sha256_of_values, write_values
from megatron.checkpointing.inspecting.tensors import TensorReader
from megatron.checkpointing.names import is_weight, parameter_of
from megatron.checkpointing.settings import SETTINGS
from megatron.errors import CheckpointError


def consolidate(contents: Contents, output: Path, *, optimizer: bool = False, dtype: str | None = None) -> int:
    """Write the weights, with `optimizer` its state as well, to `output`, which then exists whole or not at all; its size in bytes.

    dtype: of the weights ("bfloat16"); None and optimizer state keep the one they were saved in. A weight has the parameter's name, state
    `"{parameter}/exp_avg"`. The file is read back and compared to the bit before it gets its name. One tensor and one saved chunk are in
    memory at a time. Raises CheckpointError when a value does not fit the dtype, there is no such state, or the file cannot be written.
    """
    if optimizer and all(map(is_weight, contents.tensors)):
        raise CheckpointError(f"{contents.path} holds no optimizer state")
    tensors = aligned(
        [
            Written(parameter_of(name), tensor, dtype or tensor.dtype)
            if is_weight(name)
            else Written(name, tensor, tensor.dtype)
            for name, tensor in contents.tensors.items()
            if optimizer or is_weight(name)
        ]
    )
    beginning = header(tensors, _metadata(contents))
    size = len(beginning) + sum(tensor.size for tensor in tensors)
    _check_space(output, size)
    reader = TensorReader(contents.path)
    try:
        with atomic_file(output) as file:
            file.write(beginning)
            written = {tensor.name: write_values(file, reader[tensor.source.name], tensor) for tensor in tensors}
            file.flush()
            _read_back(file, written, output)
    except OSError as error:
        why = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise CheckpointError(f"{output} cannot be written: {why}; nothing is left of it") from error
    return size


def _metadata(contents: Contents) -> Mapping[str, str]:
    """What the file says of its origin; `format` tells other programs that shapes are those of torch."""
    config = contents.path / SETTINGS
    facts = {
        "format": "pt",
        "checkpoint": contents.path.name,
        "iteration": str(contents.state.iteration),
        "config_sha256": sha256_of(config.read_bytes()) if config.exists() else "",
        "commit": (contents.state.content.get("source") or {}).get("commit", ""),
    }
    return {name: text for name, text in facts.items() if text}


def _check_space(output: Path, size: int) -> None:
    free = shutil.disk_usage(output.parent).free
    if free < size:
        raise CheckpointError(f"{output} needs {size:,} bytes, and the disk of {output.parent} has {free:,} left")


def _read_back(file: BinaryIO, written: Mapping[str, str], output: Path) -> None:
    """Compare what the format's own library reads with what was written."""
    from safetensors import safe_open

    with safe_open(file.name, framework="pt") as opened:
        names = sorted(opened.keys())
    found = {}
    for name in names:
        # Opened anew for each, as it maps the file into memory, whose pages would otherwise stay until the end.
        with safe_open(file.name, framework="pt") as opened:
            found[name] = sha256_of_values(opened.get_tensor(name))
    if found != written:
        differing = sorted(name for name in written.keys() | found.keys() if written.get(name) != found.get(name))
        raise CheckpointError(f"{output} was not written as it should be: {differing[0]} is read back otherwise")
