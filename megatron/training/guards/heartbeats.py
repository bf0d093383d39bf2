"""What every rank last said of itself, through the store in which the ranks met: it is there whatever becomes of the collectives."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist

PREFIX = "megatron/guards"


@dataclass(frozen=True, order=True)
class Progress:
    """How far a rank is: steps finished, then the number of the stage it is in within the step; `doing` says the same in words."""

    iteration: int
    stage: int
    doing: str

    def encode(self) -> str:
        return f"{self.iteration}|{self.stage}|{self.doing}"

    @classmethod
    def decode(cls, text: str) -> Progress:
        iteration, stage, doing = text.split("|", 2)
        return cls(int(iteration), int(stage), doing)


@dataclass(frozen=True)
class Beat:
    """`count` rises as long as the rank lives."""

    count: int
    progress: Progress


class Heartbeats:
    """The beats of all ranks, and the alarm that any of them may raise. Every call may raise RuntimeError where the store has gone."""

    def __init__(self, store: Any, *, rank: int, size: int) -> None:
        """store: one of torch.distributed's, used by nobody else."""
        self._store = store
        self._rank = rank
        self._ranks = range(size)
        self._count = 0

    def beat(self, progress: Progress) -> None:
        """Say that this rank lives, and how far it is."""
        self._count += 1
        self._store.set(f"{PREFIX}/beat/{self._rank}", f"{self._count}|{progress.encode()}")

    def read(self) -> dict[int, Beat]:
        """The last beat of every rank that had one."""
        beats = {}
        for rank in self._ranks:
            key = f"{PREFIX}/beat/{rank}"
            if self._store.check([key]):
                count, text = self._store.get(key).decode().split("|", 1)
                beats[rank] = Beat(int(count), Progress.decode(text))
        return beats

    def raise_alarm(self) -> None:
        """Let every rank tell where it is, and end."""
        self._store.set(f"{PREFIX}/alarm", "1")

    @property
    def alarm(self) -> bool:
        """Whether a rank has raised the alarm."""
        return bool(self._store.check([f"{PREFIX}/alarm"]))

    def leave(self) -> None:
        """This rank has told all it knows, and exits."""
        self._store.set(f"{PREFIX}/left/{self._rank}", "1")

    def left(self, ranks: Sequence[int]) -> bool:
        """Whether all these ranks have."""
        return all(self._store.check([f"{PREFIX}/left/{rank}"]) for rank in ranks)


def open_heartbeats(*, rank: int, size: int) -> Heartbeats | None:
    """Over a connection of its own to the ranks' store, since the main thread may block its one; None where there is nobody to talk to."""
    if size == 1:
        return None
    store: Any = dist.distributed_c10d._get_default_store()
    with contextlib.suppress(RuntimeError, NotImplementedError):
        return Heartbeats(store.clone(), rank=rank, size=size)
    return None
