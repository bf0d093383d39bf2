"""What a rank holds of a parameter that ZeRO 3 divides: its part without the padding, whose bits are nobody's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from megatron.engine.replicas import first_non_finite, replicas_of
from megatron.mpu.groups import Group, ProcessGroups
from megatron.mpu.shard import ShardInfo, set_shard
from megatron.mpu.topology import Topology


def divided(length: int, part: Tensor) -> nn.Module:
    """A module with one parameter, as DeepSpeed leaves it on a rank that holds `part`."""
    module = nn.Module()
    parameter: Any = nn.Parameter(torch.empty(0))
    set_shard(parameter, ShardInfo((length,), lambda tensor, generator: None, name="scale"))
    parameter.ds_tensor, parameter.ds_numel, parameter.ds_persist = part, length, False
    module.register_parameter("scale", parameter)
    return module


def groups(rank: int) -> ProcessGroups:
    """Of the first tensor rank of two, with two data ranks."""
    data = Group(rank, 2, (0, 2), None)
    topology = Topology(data=2, tensor=2)
    return ProcessGroups(topology, rank=2 * rank, tensor=Group(0, 2, (0, 1), None), data=data, replicas=data)


@pytest.mark.parametrize(("rank", "held"), [(0, [1.0, 2.0]), (1, [3.0])])
def test_padding_is_neither_compared_nor_judged(rank: int, held: list[float]) -> None:
    part = torch.tensor([1.0, 2.0] if rank == 0 else [3.0, float("nan")])
    module = divided(3, part)
    (replica,) = replicas_of(module, groups(rank))
    assert replica.values.tolist() == held
    assert [group.ranks for group in replica.groups] == [(0, 1)]
    assert first_non_finite(module, groups(rank)) is None


def test_a_rank_with_nothing_but_padding_has_nothing_to_compare() -> None:
    module = divided(2, torch.full((2,), float("nan")))
    assert list(replicas_of(module, groups(1))) == []
    assert first_non_finite(module, groups(1)) is None
