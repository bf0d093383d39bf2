"""How a parameter is sharded, said by the parameter itself.

`ShardInfo` is all that clipping, initialisation, checkpoints, resharding and conversion look at: nothing else asks what kind of
module a parameter belongs to. A full tensor is cut along one dimension; when several matrices are fused along that
dimension (`parts`), each is cut by itself, so that rank r of t holds `[part_0 / t, part_1 / t, ...]`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from megatron.mpu.groups import Group

InitMethod = Callable[[Tensor, torch.Generator], None]
"""Fills a full-sized fp32 CPU tensor in place, drawing from the generator."""


@dataclass(frozen=True)
class Chunk:
    """`length` indices along the sharded dimension: at `full_start` of the full tensor, at `local_start` of the shard."""

    full_start: int
    local_start: int
    length: int


@dataclass(frozen=True)
class ShardInfo:
    """What one parameter is a shard of.

    full_shape: shape of the whole parameter; dim: the dimension cut over the tensor-parallel ranks, None = replicated;
    parts: sizes (in the full tensor) of the matrices fused along `dim`, () = one; rank, size: which shard this is;
    valid_rows: rows of dimension 0 that are real, the rest being vocabulary padding (a property of the run, never of a checkpoint);
    tied: key shared by the parameter's copies on several pipeline stages; name: layout-free name, set when the model is built.
    """

    full_shape: tuple[int, ...]
    init: InitMethod = field(repr=False, compare=False)
    dim: int | None = None
    parts: tuple[int, ...] = ()
    rank: int = 0
    size: int = 1
    valid_rows: int | None = None
    tied: str | None = None
    name: str = ""

    @property
    def is_sharded(self) -> bool:
        """Whether this process holds only a part of the parameter."""
        return self.dim is not None and self.size > 1

    @property
    def logical_shape(self) -> tuple[int, ...]:
        """The full shape without vocabulary padding: the same in every layout."""
        if self.valid_rows is None:
            return self.full_shape
        return (self.valid_rows, *self.full_shape[1:])

    @property
    def local_shape(self) -> tuple[int, ...]:
        """The shape of this process's shard."""
        if self.dim is None:
            return self.full_shape
        return (*self.full_shape[: self.dim], self.full_shape[self.dim] // self.size, *self.full_shape[self.dim + 1 :])

    def chunks(self) -> list[Chunk]:
        """The pieces of the full tensor along `dim` that this shard holds, in local order (one piece a fused part)."""
        if self.dim is None:
            raise ValueError("a replicated parameter has no chunks")
        chunks, full_start, local_start = [], 0, 0
        for part in self.parts or (self.full_shape[self.dim],):
            length = part // self.size
            chunks.append(Chunk(full_start + self.rank * length, local_start, length))
            full_start += part
            local_start += length
        return chunks

    def cut(self, full: Tensor) -> Tensor:
        """This process's shard of a full tensor."""
        if not self.is_sharded:
            return full
        assert self.dim is not None
        return torch.cat(
            [full.narrow(self.dim, chunk.full_start, chunk.length) for chunk in self.chunks()], dim=self.dim
        )


def sharded_parameter(
    full_shape: tuple[int, ...],
    *,
    init: InitMethod,
    group: Group,
    dim: int | None = None,
    parts: tuple[int, ...] = (),
    valid_rows: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> nn.Parameter:
    """An uninitialised parameter holding this rank's shard, with its `ShardInfo` in `.shard`.

    Raises ValueError when a fused part does not divide by the group's size.
    """
    info = ShardInfo(tuple(full_shape), init, dim, tuple(parts), group.rank, group.size, valid_rows)
    if dim is not None:
        sizes = info.parts or (info.full_shape[dim],)
        if sum(sizes) != info.full_shape[dim] or any(size % group.size for size in sizes):
            raise ValueError(
                f"dimension {dim} of {info.full_shape} (parts {sizes}) cannot be divided among {group.size} ranks"
            )
    parameter = nn.Parameter(torch.empty(info.local_shape, dtype=dtype, device=device))
    set_shard(parameter, info)
    return parameter


def shard_of(parameter: Tensor) -> ShardInfo:
    """The ShardInfo of a parameter; a parameter without one is a defect of the layer that made it."""
    info: ShardInfo = parameter.shard  # type: ignore[attr-defined]
    return info


def set_shard(parameter: Tensor, info: ShardInfo) -> None:
    """Attach `info`, and the mark by which DeepSpeed's gradient norm knows that the ranks hold different values."""
    parameter.shard = info  # type: ignore[attr-defined]
    parameter.model_parallel = info.is_sharded  # type: ignore[attr-defined]
    parameter.tensor_model_parallel = info.is_sharded  # type: ignore[attr-defined]


def name_parameters(module: nn.Module, prefix: str) -> None:
    """Give every parameter of a layer its layout-free name, `prefix.local_name`."""
    for local_name, parameter in module.named_parameters():
        set_shard(parameter, replace(shard_of(parameter), name=f"{prefix}.{local_name}"))


@torch.no_grad()
def initialize_parameters(module: nn.Module, *, seed: int) -> None:
    """Fill every (named) parameter with values that depend on its name and the seed only, never on the layout."""
    for parameter in module.parameters():
        info = shard_of(parameter)
        generator = torch.Generator().manual_seed(stable_seed(seed, info.name))
        logical = torch.empty(info.logical_shape, dtype=torch.float32)
        info.init(logical, generator)
        full = logical
        if info.full_shape != info.logical_shape:
            full = torch.zeros(info.full_shape, dtype=torch.float32)
            full[: info.logical_shape[0]] = logical
        parameter.copy_(info.cut(full))


def stable_seed(*parts: object) -> int:
    """A 63-bit seed from any values, the same in every process and Python version."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
