"""A training state of some size, and the ways of writing it to the disk and reading it back that `checkpoint.py` compares.

Every process holds its rows of each tensor, as views of one flat buffer each for weights and both moments: what ZeRO leaves of a
model. Our checkpoints are given those views; the others get tensors of their own over the same memory, which suits them best.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file
from torch import Tensor

from megatron.checkpointing.loading.load import load_checkpoint
from megatron.checkpointing.saving.hashing_writer import standing_alone
from megatron.checkpointing.saving.host_copies import HostCopies
from megatron.checkpointing.saving.save import save_checkpoint, take_snapshot, write_snapshot
from megatron.engine.protocol import FullTensor, Piece
from megatron.mpu.groups import Group, ProcessGroups
from megatron.mpu.topology import Topology

KINDS = ("weight", "exp_avg", "exp_avg_sq")
LAYERS = 8
BLOCK_BYTES = 1 << 23


@dataclass
class State:
    """What a process holds, and what checkpointing knows of an engine. flats: the buffers; tensors: the views of them."""

    group: Group
    flats: list[Tensor]
    tensors: dict[str, FullTensor]
    copies: HostCopies = field(default_factory=HostCopies)

    def __post_init__(self) -> None:
        self.warm = [torch.zeros_like(flat) for flat in self.flats]
        self.groups = ProcessGroups(
            topology=Topology(data=self.group.size), rank=self.group.rank, data=self.group, world=self.group
        )
        self.alone = {
            f"{self.group.rank}/{name}": standing_alone(full.pieces[0].tensor) for name, full in self.tensors.items()
        }
        self.copies.take(self.tensors)

    @property
    def bytes(self) -> int:
        """Of this process's share."""
        return sum(flat.nbytes for flat in self.flats)

    def state_tensors(self, *, for_saving: bool = False) -> dict[str, FullTensor]:
        """As an engine's."""
        return self.tensors

    def state_scalars(self) -> dict[str, float | int]:
        """As an engine's."""
        return {"step": 1}

    def load_scalars(self, scalars: dict[str, float | int]) -> None:
        """As an engine's."""

    def after_load(self) -> None:
        """As an engine's."""


def build_state(megabytes: float, group: Group) -> State:
    """A process's share of the state of a transformer of about so many megabytes, filled with random numbers."""
    width = max(8, round((megabytes * 1e6 / len(KINDS) / 4 / (LAYERS * 12 + 16)) ** 0.5 / 8) * 8)
    shares = {name: _rows(shape, group) for name, shape in _shapes(width).items()}
    flats, tensors = [], {}
    for seed, kind in enumerate(KINDS):
        generator = torch.Generator().manual_seed(seed * group.size + group.rank)
        flat = torch.randn(sum(size.numel() for _, size in shares.values()), generator=generator)
        flats.append(flat)
        start = 0
        for name, (first_row, size) in shares.items():
            view = flat[start : start + size.numel()].view(size)
            start += size.numel()
            offsets = (first_row, *[0] * (len(size) - 1))
            tensors[f"{name}/{kind}"] = FullTensor(_shapes(width)[name], (Piece(offsets, view),))
    return State(group, flats, tensors)


def _shapes(width: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"0.word_embeddings.weight": (16 * width, width)}
    for layer in range(2, LAYERS + 2):
        shapes |= {
            f"{layer}.attention.query_key_value.weight": (3 * width, width),
            f"{layer}.attention.query_key_value.bias": (3 * width,),
            f"{layer}.attention.dense.weight": (width, width),
            f"{layer}.attention.dense.bias": (width,),
            f"{layer}.mlp.linear1.weight": (4 * width, width),
            f"{layer}.mlp.linear1.bias": (4 * width,),
            f"{layer}.mlp.linear2.weight": (width, 4 * width),
            f"{layer}.mlp.linear2.bias": (width,),
            f"{layer}.input_layernorm.weight": (width,),
            f"{layer}.post_attention_layernorm.weight": (width,),
        }
    return shapes


def _rows(shape: tuple[int, ...], group: Group) -> tuple[int, torch.Size]:
    """The first row of this process's share, and the share's shape."""
    first, stop = (shape[0] * number // group.size for number in (group.rank, group.rank + 1))
    return first, torch.Size((stop - first, *shape[1:]))


@dataclass(frozen=True)
class Way:
    """write: the state into an empty directory, all of it on the disk when it returns; read: it back from there, if that is compared."""

    write: Callable[[State, Path], Any]
    read: Callable[[State, Path], Any] | None = None


def write_raw(state: State, directory: Path) -> None:
    """The bytes as they lie in memory."""
    with open(directory / f"{state.group.rank}.bin", "wb", buffering=0) as file:
        for flat in state.flats:
            view = memoryview(flat.numpy()).cast("B")
            while view:
                view = view[file.write(view[:BLOCK_BYTES]) :]
        os.fsync(file.fileno())


def write_torch(state: State, directory: Path) -> None:
    """`torch.save`, a file a process."""
    with open(directory / f"{state.group.rank}.pt", "wb") as file:
        torch.save(state.alone, file)
        file.flush()
        os.fsync(file.fileno())


def write_safetensors(state: State, directory: Path) -> None:
    """`safetensors`, a file a process."""
    path = directory / f"{state.group.rank}.safetensors"
    save_file(state.alone, path)
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def write_dcp(state: State, directory: Path) -> None:
    """torch.distributed.checkpoint as it comes, synchronising its files."""
    writer = dcp.FileSystemWriter(directory, sync_files=True)
    dcp.save(state.alone, storage_writer=writer, no_dist=not dist.is_initialized())


def write_asynchronously(state: State, directory: Path) -> None:
    """What `async_save` does, from the beginning of the stall to the end of the writing."""
    write_snapshot(directory, copy_state(state), group=state.group)


def copy_state(state: State) -> Any:
    """The stall of `async_save`."""
    return take_snapshot(state, iteration=1, run_state={}, copies=state.copies)  # type: ignore[arg-type]


def copy_memory(state: State) -> None:
    """The least that a copy of the state takes."""
    for warm, flat in zip(state.warm, state.flats, strict=True):
        warm.copy_(flat)


WAYS = {
    "raw": Way(write_raw),
    "torch.save": Way(
        write_torch, lambda state, directory: torch.load(directory / f"{state.group.rank}.pt", weights_only=True)
    ),
    "safetensors": Way(
        write_safetensors, lambda state, directory: load_file(directory / f"{state.group.rank}.safetensors")
    ),
    "dcp": Way(
        write_dcp,
        lambda state, directory: dcp.load(
            state.alone, storage_reader=dcp.FileSystemReader(directory), no_dist=not dist.is_initialized()
        ),
    ),
    "ours": Way(
        lambda state, directory: save_checkpoint(directory, state, iteration=1, run_state={}),
        lambda state, directory: load_checkpoint(directory, state),
    ),
    "ours, asynchronous": Way(write_asynchronously),
}
"""In the order of the table."""
