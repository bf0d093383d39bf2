"""Process groups as values: a layer is handed the group it communicates in, and a group of one needs no process group."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from megatron.mpu.topology import Topology


@dataclass(frozen=True)
class Group:
    """A set of ranks that communicate: this process is number `rank` of `size`; `ranks` are their global ranks in order.

    `handle` is None exactly when `size` is 1: every collective is then the identity.
    """

    rank: int = 0
    size: int = 1
    ranks: tuple[int, ...] = (0,)
    handle: dist.ProcessGroup | None = None

    @property
    def name(self) -> str:
        """What torch calls the group in compiled graphs; there must be other ranks in it."""
        assert self.handle is not None
        return str(self.handle.group_name)


SINGLE = Group()


@dataclass(frozen=True)
class ProcessGroups:
    """The groups this process belongs to.

    model: the pipeline and tensor ranks that hold one copy of the weights; replicas: the data and context ranks that hold the same
    part of the weights and see different tokens, over which gradients are summed; context: the ranks that divide the same sequences.
    """

    topology: Topology
    rank: int = 0
    tensor: Group = SINGLE
    data: Group = SINGLE
    pipe: Group = SINGLE
    model: Group = SINGLE
    world: Group = SINGLE
    context: Group = SINGLE
    replicas: Group = SINGLE


SAVING_TIMEOUT = timedelta(hours=2)
"""How long the ranks wait for one another while they write or upload their shares, which may be of different sizes. A rank that dies is
noticed at once: its connections close."""


def single_process_groups() -> ProcessGroups:
    """The groups of a world of one process."""
    return ProcessGroups(topology=Topology())


def build_process_groups(topology: Topology) -> ProcessGroups:
    """Create every group of `topology` (collective: all ranks call it) and return those this process is in.

    No rank returns before the groups of all ranks are connected. Needs an initialised torch.distributed unless the world is one process.
    """
    if topology.world_size == 1:
        return single_process_groups()
    rank = dist.get_rank()
    groups = {axis: _build_axis(topology, axis, rank) for axis in ("tensor", "data", "pipe", "model", "context")}
    # The context ranks trade in every layer, so reductions of gradients that run beside have a group of their own even where it is the same.
    groups["replicas"] = groups["data"] if topology.context == 1 else _build_axis(topology, "replicas", rank)
    # A gloo rank is done with a group when its own connections stand. Were it to leave at once, it would break those of a slower one.
    dist.all_reduce(torch.zeros(1))
    world = Group(rank, topology.world_size, tuple(range(topology.world_size)), dist.group.WORLD)
    return ProcessGroups(topology=topology, rank=rank, world=world, **groups)


def build_saving_group(world: Group) -> Group:
    """A group of all ranks of `world` in host memory, for a thread that saves while the run trains (collective)."""
    return build_host_group(world, timeout=SAVING_TIMEOUT)


def build_host_group(world: Group, *, timeout: timedelta) -> Group:
    """A group of all ranks of `world` in host memory, which wait for one another up to `timeout` (collective)."""
    if world.size == 1:
        return world
    handle = dist.new_group(list(world.ranks), backend="gloo", timeout=timeout)
    dist.all_reduce(torch.zeros(1), group=handle)  # it is connected when this is done, and no rank has to wait then
    return Group(world.rank, world.size, world.ranks, handle)


def _build_axis(topology: Topology, axis: str, rank: int) -> Group:
    mine = SINGLE
    for ranks in topology.group_ranks(axis):
        # new_group is collective: every process must create every group, in the same order.
        handle = dist.new_group(list(ranks)) if len(ranks) > 1 else None
        if rank in ranks:
            mine = Group(ranks.index(rank), len(ranks), ranks, handle)
    return mine
