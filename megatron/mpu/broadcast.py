"""Giving what one rank has to every rank of its group: batches read by the first tensor-parallel rank, decisions, names."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from megatron.mpu.groups import Group


def broadcast_tensors(tensors: dict[str, Tensor] | None, group: Group, device: torch.device | str) -> dict[str, Tensor]:
    """The tensors of the group's first rank, on every rank and on `device`, in the same order; the other ranks may pass None.

    Names, shapes and types travel first in one small message, so the receivers need not know them.
    """
    if group.rank == 0 and tensors is None:
        raise ValueError("the first rank of the group must give the tensors to broadcast")
    if group.size == 1:
        assert tensors is not None
        return {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}
    header = broadcast_object({name: (tensor.shape, tensor.dtype) for name, tensor in (tensors or {}).items()}, group)
    received: dict[str, Tensor] = {}
    pending = []
    for name, (shape, dtype) in header.items():
        if group.rank == 0 and tensors is not None:
            received[name] = tensors[name].to(device, non_blocking=True).contiguous()
        else:
            received[name] = torch.empty(shape, dtype=dtype, device=device)
        pending.append(dist.broadcast(received[name], src=group.ranks[0], group=group.handle, async_op=True))
    for work in pending:
        work.wait()
    return received


def broadcast_object(value: Any, group: Group) -> Any:
    """The picklable `value` of the group's first rank, on every rank."""
    if group.size == 1:
        return value
    message = [value]
    # Without a `device`, PyTorch sends it over the CPU if the group can, else over the current GPU.
    dist.broadcast_object_list(message, src=group.ranks[0], group=group.handle)
    return message[0]
