"""Where the inputs of recomputed blocks are kept between forward and backward pass: as they are, in parts, or in host memory.

A way to keep them is a pair of torch's saved-tensor hooks around `torch.utils.checkpoint`, which saves its tensor arguments and nothing else.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from megatron.mpu.collectives import all_gather
from megatron.mpu.groups import SINGLE, Group


@dataclass(frozen=True)
class KeptInputs:
    """How hidden states are kept; tensors of integers stay as they are.

    group: ranks that hold the same hidden states, each of which keeps an equal part of them and gathers the others' before the
    recomputation, which all of them reach in the same order; on_host: keep them in host memory, page-locked where there is a device to
    copy from, so that copies queue up behind the computation and nobody waits for them.
    """

    group: Group = SINGLE
    on_host: bool = False

    def hooks(self) -> AbstractContextManager[None]:
        """Within this context, autograd keeps what it saves in this way."""
        if self.group.size == 1 and not self.on_host:
            return nullcontext()
        hooks: AbstractContextManager[None] = saved_tensors_hooks(self._keep, self._give_back)
        return hooks

    def _keep(self, tensor: Tensor) -> Tensor | _Kept:
        if not tensor.is_floating_point():
            return tensor
        part = _own_part(tensor.detach(), self.group)
        return _Kept(_to_host(part) if self.on_host else part, tensor.shape, tensor.device)

    def _give_back(self, kept: Tensor | _Kept) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        part = kept.part.to(kept.device, non_blocking=True)
        if self.group.size == 1:
            return part
        return all_gather(part, self.group, dim=0)[: kept.shape.numel()].view(kept.shape)


AS_THEY_ARE = KeptInputs()


@dataclass(frozen=True)
class _Kept:
    """A part of a tensor, and what the whole was."""

    part: Tensor
    shape: torch.Size
    device: torch.device


def _own_part(tensor: Tensor, group: Group) -> Tensor:
    """This rank's part of the elements in order, [n]; zeros behind the last ones make all parts equally long."""
    if group.size == 1:
        return tensor
    length = -(-tensor.numel() // group.size)
    part = tensor.new_zeros(length)
    own = tensor.flatten()[group.rank * length : (group.rank + 1) * length]
    part[: own.numel()] = own
    return part


def _to_host(tensor: Tensor) -> Tensor:
    if tensor.device.type == "cpu":
        return tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
