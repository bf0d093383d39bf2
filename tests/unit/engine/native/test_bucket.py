"""Where parameters lie in flat buffers, and which of the values are whose."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from megatron.engine.native.bucket import Bucket, build_buckets
from megatron.mpu.groups import Group
from megatron.mpu.shard import sharded_parameter
from megatron.planning.memory.flat import ALIGNMENT

SHAPES = ((3, 50), (7,), (64, 2), (1,))


def keep(tensor: Tensor, generator: torch.Generator) -> None:
    """An initial value that nobody asks for."""


def parameters(tensor: Group = Group(), *, dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:  # noqa: B008
    """Of SHAPES: matrices cut over the tensor ranks along the first dimension that divides, vectors replicated."""
    made = []
    for number, shape in enumerate(SHAPES):
        dim = next((d for d, size in enumerate(shape) if len(shape) > 1 and size % tensor.size == 0), None)
        parameter = sharded_parameter(shape, init=keep, group=tensor, dim=dim, dtype=dtype)
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
        made.append(parameter)
    return made


def covered(buckets: list[Bucket], *, for_saving: bool) -> dict[int, Tensor]:
    """How often the fragments hold each value of each parameter, by its identity."""
    counts = {
        id(place.parameter): torch.zeros(place.parameter.numel()) for bucket in buckets for place in bucket.places
    }
    for bucket in buckets:
        for each in bucket.fragments(for_saving=for_saving):
            counts[id(each.parameter)][each.start : each.start + each.length] += 1
            values = each.flat[each.flat_start : each.flat_start + each.length]
            assert torch.equal(
                values.to(each.parameter.dtype), each.parameter.detach().view(-1)[each.start :][: each.length]
            )
    return counts


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_parameters_keep_their_values_and_begin_at_aligned_places(dtype: torch.dtype) -> None:
    given = parameters(dtype=dtype)
    before = [parameter.detach().clone() for parameter in given]
    buckets = build_buckets(given, limit=100, replicas=Group(), divides=False)
    order = [[id(place.parameter) for place in bucket.places] for bucket in buckets]
    assert order == [[id(given[3]), id(given[2])], [id(given[1]), id(given[0])]]
    for parameter, values in zip(given, before, strict=True):
        assert torch.equal(parameter, values)
    for bucket in buckets:
        for place in bucket.places:
            assert place.start % ALIGNMENT == 0
            assert place.parameter.data_ptr() == bucket.weights[place.start :].data_ptr()
        assert (bucket.master.data_ptr() == bucket.weights.data_ptr()) == (dtype == torch.float32)
        assert bucket.gradients.dtype == bucket.master.dtype == torch.float32


@pytest.mark.parametrize("divides", [False, True])
def test_replicas_together_update_and_save_every_value(divides: bool) -> None:
    held, saved = [], []
    for rank in range(3):
        buckets = build_buckets(parameters(), limit=100, replicas=Group(rank, 3, (0, 1, 2)), divides=divides)
        held.append(list(covered(buckets, for_saving=False).values()))
        saved.append(list(covered(buckets, for_saving=True).values()))
    for of_ranks in zip(*held, strict=True):
        assert (sum(of_ranks) == (1 if divides else 3)).all()
    for of_ranks in zip(*saved, strict=True):
        assert (sum(of_ranks) == 1).all()


def test_the_norm_counts_each_value_of_the_model_once() -> None:
    """Replicated parameters on the first tensor rank, in whatever runs they lie."""
    total, counted = 0.0, 0.0
    for tensor_rank in range(2):
        for rank in range(2):
            given = parameters(Group(tensor_rank, 2, (0, 1)))
            for bucket in build_buckets(given, limit=100, replicas=Group(rank, 2, (0, 1)), divides=True):
                counted += sum(float(run.of(bucket.weights).square().sum()) for run in bucket.counted())
            divided = [each for each in given if each.shard.is_sharded]  # type: ignore[attr-defined]
            whole = [each for each in given if not each.shard.is_sharded]  # type: ignore[attr-defined]
            parts = divided if tensor_rank else [*divided, *whole]
            total += sum(float(each.detach().square().sum()) for each in parts) / 2
    assert counted == pytest.approx(total, rel=1e-6)
