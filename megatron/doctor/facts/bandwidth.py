"""What a test of collective operations measures, as it travels from rank 0 to the doctor."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Self

from pydantic import TypeAdapter


@dataclass(frozen=True)
class Collective:
    """One operation at one size. bytes: of the whole result; seconds: of one call, at the slowest rank."""

    operation: str
    bytes: int
    seconds: float


@dataclass(frozen=True)
class Pair:
    """Two neighbouring ranks that sent each other `bytes` at the same time."""

    ranks: tuple[int, int]
    bytes: int
    seconds: float

    @property
    def rate(self) -> float:
        """Bytes a second in each direction."""
        return self.bytes / self.seconds


@dataclass(frozen=True)
class Bandwidth:
    """device: what rank 0 computes on; backend: of torch.distributed for it; hosts: names of the machines, by rank; wrong: what ranks found
    to be wrong in a result, by rank.
    """

    device: str
    backend: str
    hosts: Sequence[str]
    collectives: Sequence[Collective]
    pairs: Sequence[Pair]
    wrong: Mapping[int, str]

    def to_json(self) -> str:
        """As rank 0 leaves it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` gave."""
        return TypeAdapter(cls).validate_json(text)


def bus_bytes(operation: str, size: int, ranks: int) -> float:
    """Bytes that each rank has to send for one call, at least: what makes rates of different operations and numbers of ranks comparable.

    In a ring every rank sends all pieces of the result but its own; all-reduce does so twice, to sum and to spread (NVIDIA's nccl-tests).
    """
    share = (ranks - 1) / ranks
    return size * share * (2 if operation == "all-reduce" else 1)
