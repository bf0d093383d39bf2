"""Copies of a weight that have to be equal and are not: found by hashes of their bits every so many steps (`check_desync`).

Data, context and tensor ranks and pipeline stages that hold the same weights get the same updates, so they stay equal to the bit. A
faulty device, a nondeterministic kernel or a defect of the code lets them drift apart without any other sign.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from megatron import text
from megatron.engine.protocol import Engine
from megatron.engine.replicas import Replica
from megatron.errors import NeoXError
from megatron.mpu.collectives import all_gather, all_gather_objects, all_reduce_sum
from megatron.mpu.groups import Group
from megatron.training.guards.bit_hash import bit_hash


@dataclass(frozen=True)
class Desync:
    """A parameter whose copies on `odd` differ from those of `others` (global ranks)."""

    name: str
    odd: tuple[int, ...]
    others: tuple[int, ...]


class DesyncGuard:
    """Compares the copies of all weights of the engine; see `Engine.replicas` for what is compared."""

    def __init__(self, engine: Engine, *, interval: int) -> None:
        self._engine = engine
        self._interval = interval

    def is_due(self, iteration: int) -> bool:
        """Whether to check after this iteration."""
        return self._interval > 0 and iteration % self._interval == 0

    def check(self, iteration: int) -> None:
        """Raises NeoXError on every rank when copies differ anywhere (collective)."""
        groups = self._engine.groups
        mine, world = find_desync(self._engine.replicas(), axes=(groups.replicas, groups.tensor)), groups.world
        if not all_reduce_sum(float(mine is not None), world):
            return
        found = [desync for desync in all_gather_objects(mine, world) if desync is not None]
        raise NeoXError(message(found[0], iteration))


def find_desync(replicas: Sequence[Replica], *, axes: Sequence[Group]) -> Desync | None:
    """The first of our replicas that differs from another process's (collective over the groups of the replicas).

    axes: the groups to go through first; all processes must name theirs in the same order, or they would wait for one another.
    """
    if not replicas:
        return None
    hashes = torch.stack([bit_hash(replica.values) for replica in replicas])
    found: dict[int, Desync] = {}
    for group in dict.fromkeys([*axes, *(group for replica in replicas for group in replica.groups)]):
        held = [index for index, replica in enumerate(replicas) if group in replica.groups]
        if not held:
            continue
        gathered = all_gather(hashes[held].unsqueeze(0), group, dim=0)
        for column, index in enumerate(held):
            desync = _compare(replicas[index].name, gathered[:, column].tolist(), group)
            if desync is not None:
                found.setdefault(index, desync)
    return found[min(found)] if found else None


def message(desync: Desync, iteration: int) -> str:
    """What the run ends with."""
    return (
        f'the weights of "{desync.name}" are not the same on {text.ranks(desync.odd)} as on {text.ranks(desync.others)} after iteration {iteration} '
        "(check_desync): copies of one weight have drifted apart, so nothing is saved any more. Start again from a checkpoint of before; if "
        "it happens again on the same rank, its device or memory is at fault, and on changing ones a kernel that is not deterministic"
    )


def _compare(name: str, hashes: Sequence[int], group: Group) -> Desync | None:
    """Most ranks are taken to be right; of as many, those that agree with the first."""
    ((usual, _), *others) = Counter(hashes).most_common()
    if not others:
        return None
    places = list(zip(group.ranks, hashes, strict=True))
    return Desync(
        name,
        odd=tuple(rank for rank, value in places if value != usual),
        others=tuple(rank for rank, value in places if value == usual),
    )
