"""The global gradient norm of ZeRO stages 1 and 2, in place of DeepSpeed's own.

DeepSpeed reduces over the processes once for each parameter group. Pipeline stages need not have the same groups (a head alone on its
stage has nothing that is not decayed), and then wait for one another for ever. Here there is one reduction, and which process counts a
parameter is read from its `ShardInfo`: every value of every full tensor exactly once.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor

from megatron.engine.replicas import speaks_for
from megatron.engine.squares import sum_of_squares
from megatron.engine.zero_state import fragments


def replace_gradient_norm(optimizer: Any) -> None:
    """Give DeepSpeed's stage 1 and 2 optimizer the norm of this file; others are left as they are."""
    if hasattr(optimizer, "scaled_global_norm"):
        norm = _global_norm_in_host_memory if optimizer.cpu_offload else _global_norm
        optimizer.scaled_global_norm = MethodType(norm, optimizer)


def _global_norm(optimizer: Any, norm_type: int = 2) -> Tensor:
    """2-norm of the averaged gradients over all processes, a scalar fp32 tensor, infinite if any of them is not finite (collective)."""
    total = torch.zeros((), dtype=torch.float64, device=optimizer.device)
    for index, parameters in enumerate(optimizer.params_in_partition):
        parts = (part for part in optimizer.averaged_gradients[index] if not getattr(part, "_zero_padding", False))
        # strict is off: a partition without parameters is a single buffer of zeros.
        for part, parameter in zip(parts, parameters, strict=False):
            if speaks_for(parameter):
                total += sum_of_squares(part.detach().view(-1))
    return _over_processes(optimizer, total)


def _global_norm_in_host_memory(optimizer: Any, norm_type: int = 2) -> Tensor:
    """As `_global_norm`, where the gradients of this process's part lie in host memory, behind the weights that they are of."""
    total = torch.zeros((), dtype=torch.float64)
    for fragment in fragments(optimizer):
        if speaks_for(fragment.parameter):
            assert fragment.flat.grad is not None
            part = fragment.flat.grad.view(-1).narrow(0, fragment.flat_start, fragment.length)
            total += sum_of_squares(part)
    device = optimizer.bit16_groups[0][0].device
    return _over_processes(optimizer, total.to(device)).to(optimizer.device)


def _over_processes(optimizer: Any, total: Tensor) -> Tensor:
    """The root of all processes' squares together."""
    for group in (optimizer.dp_process_group, optimizer.model_parallel_group):
        torch.distributed.all_reduce(total, group=group)
    norm = total.sqrt().float()
    return torch.where(torch.isfinite(norm), norm, torch.full_like(norm, float("inf")))
