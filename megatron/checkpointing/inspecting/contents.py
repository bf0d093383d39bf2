"""What a checkpoint says of itself: everything that is known without reading a tensor, and without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from megatron.checkpointing.errors import DamagedCheckpoint
from megatron.checkpointing.manifest import MANIFEST, read_manifest
from megatron.checkpointing.settings import read_origins, read_values
from megatron.checkpointing.state_file import STATE, SavedState, read_state
from megatron.data.ledger.segments import Ledger, read_ledger
from megatron.errors import DataError

ITEM_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes of a value by dtype."""


@dataclass(frozen=True)
class SavedTensor:
    """A tensor as it was saved. name: `"{parameter}/weight"`, `"{parameter}/exp_avg"`, ...; dtype: as torch calls it, `"float32"`."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def elements(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Bytes of the values."""
        return self.elements * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class Contents:
    """The tensors by name, the state, the settings of the run with their origins, what it was trained on, and bytes on disk.

    settings: what differs from defaults; None where the checkpoint does not say. ledger: None where there is none; ledger_problem: why it
    cannot be read.
    """

    path: Path
    state: SavedState
    tensors: Mapping[str, SavedTensor]
    settings: Mapping[str, Any] | None
    origins: Mapping[str, str]
    ledger: Ledger | None
    ledger_problem: str
    size: int

    @property
    def saved_at(self) -> datetime | None:
        """When it was saved; None where it does not say."""
        return time_of(self.state)

    @property
    def value_bytes(self) -> int:
        """Bytes of all values."""
        return sum(tensor.size for tensor in self.tensors.values())


def read_contents(checkpoint: Path) -> Contents:
    """What a checkpoint directory says. Raises DamagedCheckpoint, or CheckpointError when a newer version wrote it."""
    state = read_state(checkpoint)
    ledger, problem = None, ""
    try:
        ledger = read_ledger(checkpoint)
    except DataError as error:  # of a newer version, say: the tensors can be looked at all the same
        problem = str(error)
    return Contents(
        path=checkpoint,
        state=state,
        tensors=_tensors(checkpoint, state),
        settings=read_values(checkpoint),
        origins=read_origins(checkpoint),
        ledger=ledger,
        ledger_problem=problem,
        size=size_of(checkpoint),
    )


def size_of(checkpoint: Path) -> int:
    """Bytes of all files of a checkpoint. Raises DamagedCheckpoint when its manifest cannot be read."""
    listed = sum(facts["size"] for _, facts in read_manifest(checkpoint))
    return int(listed + (checkpoint / MANIFEST).stat().st_size)


def time_of(state: SavedState) -> datetime | None:
    """When a checkpoint was saved, in UTC; None where it does not say."""
    try:
        return datetime.fromisoformat(state.content["saved_at"])
    except (KeyError, TypeError, ValueError):
        return None


def _tensors(checkpoint: Path, state: SavedState) -> dict[str, SavedTensor]:
    tensors = {
        name: SavedTensor(name, shape, str(state.content["tensors"][name].get("dtype")))
        for name, shape in sorted(state.shapes.items())
    }
    unknown = [tensor for tensor in tensors.values() if tensor.dtype not in ITEM_BYTES]
    if unknown:
        raise DamagedCheckpoint(f'{checkpoint / STATE} says that {unknown[0].name} has dtype "{unknown[0].dtype}"')
    return tensors
