"""Which weights of this process others hold as well, and who: what must be the same to the bit after every step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from megatron.mpu.groups import Group, ProcessGroups
from megatron.mpu.shard import shard_of


@dataclass(frozen=True)
class Replica:
    """values: weights that every process of each of `groups` (of two or more) holds; name: of the parameter, the same in every layout."""

    name: str
    values: Tensor
    groups: tuple[Group, ...]


def replicas_of(module: nn.Module, groups: ProcessGroups) -> Iterator[Replica]:
    """The replicated parameters of this process, in the order of its layers.

    The data and context ranks hold the same weights (with ZeRO 3 only those it keeps whole), the tensor ranks those of parameters that are
    not divided (with ZeRO 3 the same part of them), and pipeline stages the parameters they share.
    """
    shared = {id(tie.parameter): group_of(tie.group) for tie in getattr(module, "ties", ())}
    for parameter in module.parameters():
        info = shard_of(parameter)
        values, whole = _held(parameter, groups.replicas.rank)
        holders = [
            groups.replicas if whole else Group(),
            Group() if info.is_sharded else groups.tensor,
            shared.get(id(parameter), Group()),
        ]
        several = tuple(group for group in holders if group.size > 1)
        if several and values.numel() > 0:
            yield Replica(info.name, values, several)


def first_non_finite(module: nn.Module, groups: ProcessGroups) -> str | None:
    """The name of the first parameter with weights here that are not finite; waits for the device."""
    return next((name for name, values in _weights(module.parameters(), groups) if not _is_finite(values)), None)


def speaks_for(parameter: Tensor) -> bool:
    """Whether, of all processes that hold the same values of a parameter, this is the one that counts and saves them.

    That is the first tensor rank for a replicated parameter, the first stage for one that several stages share.
    """
    info = shard_of(parameter)
    return (info.is_sharded or info.rank == 0) and not getattr(parameter, "ds_pipe_replicated", False)


def group_of(handle: dist.ProcessGroup) -> Group:
    """A process group of torch's, which this process is in, as ours."""
    ranks = tuple(dist.get_process_group_ranks(handle))
    return Group(ranks.index(dist.get_rank()), len(ranks), ranks, handle if len(ranks) > 1 else None)


def _weights(parameters: Iterable[nn.Parameter], groups: ProcessGroups) -> Iterator[tuple[str, Tensor]]:
    for parameter in parameters:
        yield shard_of(parameter).name, _held(parameter, groups.replicas.rank)[0]


def _is_finite(values: Tensor) -> bool:
    return bool(values.isfinite().all())


def _held(parameter: Any, rank: int) -> tuple[Tensor, bool]:
    """The weights of a parameter that this process has, and whether that is all of (this tensor rank's part of) it.

    ZeRO 3 gives each rank a part, the last one padded, and keeps small parameters whole.
    """
    if not hasattr(parameter, "ds_tensor") or parameter.ds_persist:
        return parameter.detach(), True
    part: Tensor = parameter.ds_tensor.detach().view(-1)
    length = max(0, min(part.numel(), parameter.ds_numel - rank * part.numel()))
    return part.narrow(0, 0, length), False
