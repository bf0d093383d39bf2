"""The GPU's random numbers are a function of the step and the place in the grid, as the CPU's are."""

from __future__ import annotations

import pytest
import torch

from megatron.mpu.groups import Group
from megatron.mpu.random import seed_step, tensor_parallel_randomness
from megatron.mpu.topology import Coordinates

pytestmark = pytest.mark.gpu

HOME = Coordinates(pipe=0, data=0, tensor=0)


def draw(device: torch.device) -> torch.Tensor:
    return torch.rand(1000, device=device)


def test_a_step_draws_the_same_whatever_was_drawn_before(device: torch.device) -> None:
    seed_step(1, 10, HOME)
    first = draw(device)
    draw(device)
    seed_step(1, 10, HOME)
    assert torch.equal(draw(device), first)


@pytest.mark.parametrize(
    ("seed", "iteration", "place"),
    [(2, 10, HOME), (1, 11, HOME), (1, 10, Coordinates(pipe=0, data=1, tensor=0))],
)
def test_another_seed_step_or_replica_draws_something_else(
    seed: int, iteration: int, place: Coordinates, device: torch.device
) -> None:
    seed_step(1, 10, HOME)
    first = draw(device)
    seed_step(seed, iteration, place)
    assert not torch.isclose(draw(device), first).any()


def test_tensor_ranks_draw_different_numbers_inside_a_region_and_the_same_after_it(device: torch.device) -> None:
    inside, after = [], []
    for rank in range(2):
        seed_step(1, 10, Coordinates(pipe=0, data=0, tensor=rank))
        with tensor_parallel_randomness(Group(rank, 2, (0, 1))):
            inside.append(draw(device))
        after.append(draw(device))
    assert not torch.isclose(*inside).any()
    assert torch.equal(*after)


def test_a_region_leaves_the_generator_where_it_was_also_after_an_error(device: torch.device) -> None:
    group = Group(1, 2, (0, 1))
    seed_step(1, 10, HOME)
    with tensor_parallel_randomness(group):
        pass
    expected = draw(device)
    seed_step(1, 10, HOME)
    with pytest.raises(RuntimeError), tensor_parallel_randomness(group):
        draw(device).view(2, 3)
    assert torch.equal(draw(device), expected)


def test_a_region_draws_the_same_again_when_the_cpu_generator_is_restored(device: torch.device) -> None:
    """As recomputation restores it; whatever the GPU's generator has drawn meanwhile."""
    group = Group(1, 2, (0, 1))
    state = torch.get_rng_state()
    with tensor_parallel_randomness(group):
        first = draw(device)
    draw(device)
    torch.set_rng_state(state)
    with tensor_parallel_randomness(group):
        assert torch.equal(draw(device), first)
