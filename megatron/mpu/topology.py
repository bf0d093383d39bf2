"""Rank arithmetic of a pipeline x data x tensor grid, without torch.distributed.

Ranks are numbered with the tensor axis fastest and the pipeline axis slowest, as DeepSpeed's PipeModelDataParallelTopology does:
tensor-parallel ranks are neighbours (they talk most), pipeline stages are furthest apart (they talk least).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Coordinates:
    """The place of one process in the grid."""

    pipe: int
    data: int
    tensor: int


@dataclass(frozen=True)
class Topology:
    """The sizes of the grid; their product is the world size."""

    pipe: int = 1
    data: int = 1
    tensor: int = 1

    @property
    def world_size(self) -> int:
        return self.pipe * self.data * self.tensor

    def rank(self, *, pipe: int = 0, data: int = 0, tensor: int = 0) -> int:
        """The global rank at these coordinates."""
        return (pipe * self.data + data) * self.tensor + tensor

    def coordinates(self, rank: int) -> Coordinates:
        """The coordinates of a global rank."""
        rest, tensor = divmod(rank, self.tensor)
        pipe, data = divmod(rest, self.data)
        return Coordinates(pipe, data, tensor)

    def group_ranks(self, axis: str) -> list[tuple[int, ...]]:
        """Every group along `axis` ("tensor", "data", "pipe", or "model" = pipe and tensor together), each a tuple of global ranks."""
        free = {"tensor": ("tensor",), "data": ("data",), "pipe": ("pipe",), "model": ("pipe", "tensor")}[axis]
        groups: dict[tuple[int, ...], list[int]] = {}
        for rank in range(self.world_size):
            place = self.coordinates(rank)
            fixed = tuple(getattr(place, name) for name in ("pipe", "data", "tensor") if name not in free)
            groups.setdefault(fixed, []).append(rank)
        return [tuple(ranks) for ranks in groups.values()]
