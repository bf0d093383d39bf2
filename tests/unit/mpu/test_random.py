"""Random numbers are a function of the seed, the iteration and the place in the grid."""

from __future__ import annotations

import pytest
import torch

from megatron.mpu.groups import SINGLE, Group
from megatron.mpu.random import seed_step, tensor_parallel_randomness
from megatron.mpu.topology import Coordinates

HOME = {"seed": 1, "iteration": 10, "coordinates": Coordinates(pipe=0, data=0, tensor=0)}


def _draws(**changes):
    values = HOME | changes
    seed_step(values["seed"], values["iteration"], values["coordinates"])
    return torch.rand(4).tolist()


def test_the_same_step_draws_the_same_whatever_was_drawn_before():
    first = _draws()
    torch.rand(17)
    assert _draws() == first


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 2},
        {"iteration": 11},
        {"coordinates": Coordinates(pipe=1, data=0, tensor=0)},
        {"coordinates": Coordinates(pipe=0, data=1, tensor=0)},
    ],
)
def test_another_seed_step_or_replica_draws_something_else(changes):
    assert _draws(**changes) != _draws()


def test_data_and_pipeline_ranks_are_not_confused():
    assert _draws(coordinates=Coordinates(pipe=1, data=0, tensor=0)) != _draws(
        coordinates=Coordinates(pipe=0, data=1, tensor=0)
    )


def test_tensor_ranks_draw_the_same():
    assert _draws(coordinates=Coordinates(pipe=0, data=0, tensor=3)) == _draws()


def test_a_region_of_one_rank_changes_nothing():
    torch.manual_seed(0)
    with tensor_parallel_randomness(SINGLE):
        inside = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(inside, torch.rand(3))


def test_a_region_ends_where_it_began_also_after_an_error():
    group = Group(rank=1, size=2, ranks=(0, 1))
    torch.manual_seed(0)
    with tensor_parallel_randomness(group):
        pass
    expected = torch.rand(3)
    torch.manual_seed(0)
    with pytest.raises(RuntimeError), tensor_parallel_randomness(group):
        torch.rand(5).view(2, 3)
    assert torch.equal(torch.rand(3), expected)
