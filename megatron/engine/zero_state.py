"""Where ZeRO keeps the fp32 weights and optimizer moments of each parameter, for DeepSpeed's three kinds of optimizer.

Every kind updates a few flat fp32 tensors per process, which torch's optimizer knows as its parameters. A `Fragment` says which run
of a parameter's local shard lies where in which of them. DeepSpeed's private attributes are read here and nowhere else.

    DeepSpeedZeroOptimizer         stages 1 and 2: one flat tensor a parameter group, an equal part of the group's values a process
    BF16_Optimizer                 the same, for bf16 with fp32 gradients at stage 1
    DeepSpeedZeroOptimizer_Stage3  each parameter divided by itself, the parts laid one after another in sub-groups
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from megatron.engine.library import deepspeed
from megatron.engine.state import Fragment


@dataclass(frozen=True)
class FlatTensor:
    """A flat fp32 tensor that torch's optimizer updates, and the index of the parameter group whose options apply to it."""

    values: Tensor
    group: int


def flat_tensors(optimizer: Any) -> list[FlatTensor]:
    """The flat tensors of this process."""
    if _is_stage3(optimizer):
        flats = optimizer.fp32_partitioned_groups_flat
        return [FlatTensor(flat, optimizer.sub_group_to_group_id[index]) for index, flat in enumerate(flats)]
    return [FlatTensor(flat, index) for index, flat in enumerate(_group_partitions(optimizer))]


def fragments(optimizer: Any) -> Iterator[Fragment]:
    """Every run of every parameter that this process updates."""
    if _is_stage3(optimizer):
        return _stage3_fragments(optimizer)
    return _group_fragments(optimizer)


def push_weights(optimizer: Any) -> None:
    """Copy the fp32 weights into the model's parameters, in their precision, on all processes (collective)."""
    with torch.no_grad():
        if not _is_stage3(optimizer):
            optimizer.update_lp_params()
            return
        # The order of the optimizer's own step: give up gathered copies, refill the partitions, gather again what stays gathered.
        optimizer._partition_all_parameters()
        for index in range(len(optimizer.fp16_groups)):
            optimizer._reassign_or_swap_out_partitioned_parameters(index)
        persistent = optimizer.persistent_parameters
        if persistent:
            persistent[0].all_gather(persistent)


def materialize_moments(optimizer: Any) -> None:
    """Create the optimizer's state, all zero, where no step has created it yet; weights stay as they are."""
    inner = optimizer.optimizer
    groups = inner.param_groups
    for flat in flat_tensors(optimizer):
        if inner.state.get(flat.values):
            continue
        # The optimizer itself knows best which state it has: let it take a step that moves nothing.
        inner.param_groups = [{**groups[flat.group], "params": [flat.values], "lr": 0.0, "weight_decay": 0.0}]
        gradient, flat.values.grad = flat.values.grad, torch.zeros_like(flat.values)
        inner.step()
        flat.values.grad = gradient
        for value in inner.state[flat.values].values():
            value.zero_()
    inner.param_groups = groups


def moments(optimizer: Any, flat: Tensor) -> dict[str, Tensor]:
    """The optimizer's state tensors of the shape of `flat`, by name."""
    state = optimizer.optimizer.state[flat]
    return {key: value for key, value in state.items() if torch.is_tensor(value) and value.shape == flat.shape}


def step_counts(optimizer: Any) -> list[Tensor]:
    """The optimizer's step counters, one a flat tensor, as the optimizer holds them; [] before the first step."""
    states: Iterable[dict[str, Any]] = (
        optimizer.optimizer.state.get(flat.values, {}) for flat in flat_tensors(optimizer)
    )
    return [state["step"] for state in states if "step" in state]


def _is_stage3(optimizer: Any) -> bool:
    return hasattr(optimizer, "fp32_partitioned_groups_flat")


def _is_bf16(optimizer: Any) -> bool:
    return isinstance(optimizer, deepspeed.runtime.bf16_optimizer.BF16_Optimizer)


def _group_partitions(optimizer: Any) -> list[Tensor]:
    partitions = (
        optimizer.fp32_groups_flat_partition if _is_bf16(optimizer) else optimizer.single_partition_of_fp32_groups
    )
    return list(partitions)


def _group_offsets(optimizer: Any, group: int) -> Iterator[tuple[nn.Parameter, int]]:
    """The parameters of a group and where each begins in the group's flattened values."""
    if not _is_bf16(optimizer):
        yield from zip(
            optimizer.round_robin_bit16_groups[group], optimizer.round_robin_bit16_offsets[group], strict=True
        )
        return
    offset = 0
    for parameter in optimizer.bf16_groups[group]:
        yield parameter, offset
        offset += parameter.numel()


def _group_fragments(optimizer: Any) -> Iterator[Fragment]:
    for group, flat in enumerate(_group_partitions(optimizer)):
        begin = torch.distributed.get_rank(optimizer.real_dp_process_group[group]) * flat.numel()
        for parameter, offset in _group_offsets(optimizer, group):
            low = max(offset, begin)
            high = min(offset + parameter.numel(), begin + flat.numel())
            if low < high:
                yield Fragment(parameter, low - offset, flat, low - begin, high - low)


def _stage3_fragments(optimizer: Any) -> Iterator[Fragment]:
    rank = torch.distributed.get_rank(optimizer.dp_process_group)
    for group in optimizer.fp16_groups:
        for parameter in group:
            index, flat_start, size = optimizer.grad_position[optimizer.get_param_id(parameter)]
            start = rank * parameter.partition_numel()
            length = min(int(size), parameter.ds_numel - start)  # the last part is padded
            if length > 0:
                yield Fragment(parameter, start, optimizer.fp32_partitioned_groups_flat[index], int(flat_start), length)
