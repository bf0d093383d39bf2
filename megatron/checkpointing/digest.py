"""One hash of what a checkpoint says, whatever layout wrote it: the same run at the same iteration has the same one.

Hashed are, in this order: a line that names the version of this recipe; the iteration, the counters of the run and the scalars of the
optimizer; for each tensor, in the order of names, a line with name, dtype and shape, and its values, row-major, as they lie in memory.
How tensors were cut into files, when, on how many processes and by which versions does not count, nor do settings or the data's ledger.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megatron.checkpointing.inspecting.tensors import iterate_tensors
from megatron.checkpointing.names import dtype_name
from megatron.checkpointing.state_file import SavedState, read_state

RECIPE = "logical checkpoint 1"


class LogicalDigest:
    """The hash of a checkpoint whose tensors are given one after the other, in the order of names."""

    def __init__(self, state: SavedState) -> None:
        self._digest = hashlib.sha256()
        _add_line(self._digest, RECIPE)
        _add_line(self._digest, {"iteration": state.iteration, "run_state": state.run_state, "scalars": state.scalars})

    def add(self, name: str, tensor: Tensor) -> None:
        """Take in the next tensor."""
        _add_line(self._digest, {"name": name, "dtype": dtype_name(tensor.dtype), "shape": list(tensor.shape)})
        self._digest.update(_bytes_of(tensor))

    def sha256(self) -> str:
        """The hexadecimal hash of what was taken in."""
        return self._digest.hexdigest()


def logical_sha256(checkpoint: Path) -> str:
    """The hexadecimal hash of a checkpoint directory, local or remote; holds one tensor in memory, and one saved chunk.

    Raises DamagedCheckpoint when something is missing or cannot be read. What the manifest says is not checked (`check_files` does).
    """
    digest = LogicalDigest(read_state(checkpoint))
    for name, tensor in iterate_tensors(checkpoint):
        digest.add(name, tensor)
        del tensor  # or it would stay while the next one is read
    return digest.sha256()


def _add_line(digest: Any, value: Any) -> None:
    """Canonical JSON has no line end in it, so no two sequences of lines and values are the same bytes by being cut elsewhere."""
    digest.update(json.dumps(value, sort_keys=True).encode() + b"\n")


def _bytes_of(tensor: Tensor) -> Any:
    """The values as a buffer, without a copy where they lie without gaps."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
