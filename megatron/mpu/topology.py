"""Rank arithmetic of a pipeline x data x context x tensor grid, without torch.distributed.

Ranks are numbered with the tensor axis fastest and the pipeline axis slowest, as DeepSpeed's PipeModelDataParallelTopology does:
tensor-parallel ranks are neighbours (they talk most), pipeline stages are furthest apart (they talk least). Context-parallel ranks,
which divide the sequences of one data-parallel rank, stand between tensor and data.
"""

from __future__ import annotations

from dataclasses import dataclass

AXES = ("pipe", "data", "context", "tensor")
"""From the slowest to the fastest."""


@dataclass(frozen=True)
class Coordinates:
    """The place of one process in the grid."""

    pipe: int
    data: int
    tensor: int
    context: int = 0


@dataclass(frozen=True)
class Topology:
    """The sizes of the grid; their product is the world size."""

    pipe: int = 1
    data: int = 1
    tensor: int = 1
    context: int = 1

    @property
    def world_size(self) -> int:
        return self.pipe * self.data * self.context * self.tensor

    def rank(self, *, pipe: int = 0, data: int = 0, context: int = 0, tensor: int = 0) -> int:
        """The global rank at these coordinates."""
        return ((pipe * self.data + data) * self.context + context) * self.tensor + tensor

    def coordinates(self, rank: int) -> Coordinates:
        """The coordinates of a global rank."""
        rest, tensor = divmod(rank, self.tensor)
        rest, context = divmod(rest, self.context)
        pipe, data = divmod(rest, self.data)
        return Coordinates(pipe, data, tensor, context)

    def group_ranks(self, axis: str) -> list[tuple[int, ...]]:
        """Every group along `axis`, each a tuple of global ranks.

        axis: "tensor", "context", "data", "pipe", "model" (pipe and tensor together) or "replicas" (data and context together).
        """
        free = {"model": ("pipe", "tensor"), "replicas": ("data", "context")}.get(axis, (axis,))
        groups: dict[tuple[int, ...], list[int]] = {}
        for rank in range(self.world_size):
            place = self.coordinates(rank)
            fixed = tuple(getattr(place, name) for name in AXES if name not in free)
            groups.setdefault(fixed, []).append(rank)
        return [tuple(ranks) for ranks in groups.values()]
