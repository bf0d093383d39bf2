"""Shards: which indices a rank holds, and initial values that do not depend on how the tensor is cut."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from megatron.mpu.groups import SINGLE, Group
from megatron.mpu.linear import ColumnParallelLinear, RowParallelLinear
from megatron.mpu.shard import (
    ShardInfo,
    initialize_parameters,
    name_parameters,
    shard_of,
    sharded_parameter,
    stable_seed,
)


def _normal(tensor, generator):
    tensor.normal_(generator=generator)


def _ranks(size):
    """Groups as each rank sees them; no communication is possible in them, and none is needed here."""
    return [Group(rank, size, tuple(range(size))) for rank in range(size)]


def _join(shards, infos, dim):
    """Put shards together the obvious way: chunk by chunk into an empty full tensor."""
    full = torch.full(infos[0].full_shape, float("nan"))
    for shard, info in zip(shards, infos, strict=True):
        for chunk in info.chunks():
            full.narrow(dim, chunk.full_start, chunk.length).copy_(shard.narrow(dim, chunk.local_start, chunk.length))
    return full


@settings(max_examples=40, deadline=None)
@given(
    size=st.sampled_from([1, 2, 3, 4]),
    units=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    dim=st.integers(0, 2),
)
def test_the_shards_of_all_ranks_are_the_full_tensor(size, units, dim):
    parts = tuple(unit * size for unit in units)
    shape = [2, 3, 4]
    shape[dim] = sum(parts)
    infos = [ShardInfo(tuple(shape), _normal, dim, parts, rank, size) for rank in range(size)]
    full = torch.randn(shape)
    shards = [info.cut(full) for info in infos]
    assert all(shard.shape == info.local_shape for shard, info in zip(shards, infos, strict=True))
    assert torch.equal(_join(shards, infos, dim), full)


def test_fused_parts_are_cut_one_by_one():
    info = ShardInfo((12,), _normal, 0, (8, 2, 2), rank=1, size=2)
    assert info.cut(torch.arange(12)).tolist() == [4, 5, 6, 7, 9, 11]


def test_a_part_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="cannot be divided among 2 ranks"):
        sharded_parameter((6,), init=_normal, group=_ranks(2)[0], dim=0, parts=(3, 3))
    with pytest.raises(ValueError, match="cannot be divided"):
        sharded_parameter((6,), init=_normal, group=SINGLE, dim=0, parts=(3, 4))


def test_only_sharded_parameters_are_marked_for_the_gradient_norm():
    row, single = (RowParallelLinear(4, 4, group=group, init=_normal) for group in (_ranks(2)[1], SINGLE))
    assert row.weight.model_parallel
    assert row.weight.tensor_model_parallel
    assert not row.bias.model_parallel
    assert not single.weight.model_parallel


@pytest.mark.parametrize(("parts", "valid_rows"), [((), None), ((8, 4, 4), None), ((), 13)])
def test_initial_values_do_not_depend_on_the_number_of_ranks(parts, valid_rows):
    def build(group):
        layer = ColumnParallelLinear(6, 16, group=group, init=_normal, parts=parts, valid_rows=valid_rows)
        name_parameters(layer, "2.attention")
        initialize_parameters(layer, seed=7)
        return layer.weight

    full = build(SINGLE).detach()
    assert full.std() > 0.5
    for size in (2, 4):
        weights = [build(group) for group in _ranks(size)]
        assert torch.equal(_join([w.detach() for w in weights], [shard_of(w) for w in weights], 0), full)


def test_initial_values_do_not_depend_on_padding_and_padding_is_zero():
    def build(rows):
        layer = ColumnParallelLinear(4, rows, group=SINGLE, init=_normal, valid_rows=11, bias=False)
        name_parameters(layer, "0.word_embeddings")
        initialize_parameters(layer, seed=1)
        return layer.weight.detach()

    short, long = build(12), build(32)
    assert torch.equal(short[:11], long[:11])
    assert not long[11:].any()


def test_initial_values_depend_on_the_name_and_the_seed():
    def build(name, seed):
        layer = RowParallelLinear(3, 5, group=SINGLE, init=_normal, bias=False)
        name_parameters(layer, name)
        initialize_parameters(layer, seed=seed)
        return layer.weight.detach()

    assert torch.equal(build("2.a", 1), build("2.a", 1))
    assert not torch.equal(build("2.a", 1), build("3.a", 1))
    assert not torch.equal(build("2.a", 1), build("2.a", 2))


def test_names_are_prefix_and_path():
    module = nn.ModuleDict({"dense": RowParallelLinear(2, 2, group=SINGLE, init=_normal)})
    name_parameters(module, "4.attention")
    assert shard_of(module["dense"].weight).name == "4.attention.dense.weight"
    assert shard_of(module["dense"].bias).name == "4.attention.dense.bias"


def test_the_stable_seed_never_changes():
    assert stable_seed(1234, "2.attention.dense.weight") == 5551045277048064984
    assert stable_seed("a", "b") != stable_seed("ab", "")
