"""Our process groups as DeepSpeed sees them."""

from __future__ import annotations

from megatron.engine.grid import Grid
from megatron.mpu.groups import Group, ProcessGroups
from megatron.mpu.topology import Topology

# Rank 5 of a pipeline of 2 x data 2 x tensor 2: stage 1, data rank 0, tensor rank 1. Handles are never used here.
HERE = ProcessGroups(
    topology=Topology(2, 2, 2),
    rank=5,
    tensor=Group(1, 2, (4, 5)),
    data=Group(0, 2, (5, 7)),
    pipe=Group(1, 2, (1, 5)),
    model=Group(3, 4, (0, 1, 4, 5)),
    world=Group(5, 8, tuple(range(8))),
)


def test_places_and_sizes_are_those_of_the_groups() -> None:
    grid = Grid(HERE)
    assert (grid.get_global_rank(), grid.get_stage_id(), grid.get_data_parallel_id()) == (5, 1, 0)
    assert (grid.get_slice_parallel_rank(), grid.get_tensor_model_parallel_world_size()) == (1, 2)
    assert (grid.get_model_parallel_rank(), grid.get_model_parallel_world_size()) == (3, 4)
    assert (grid.get_data_parallel_world_size(), grid.get_pipe_parallel_world_size()) == (2, 2)
    assert grid.pp_group == [1, 5]


def test_other_stages_are_those_with_our_data_and_tensor_ranks() -> None:
    assert [Grid(HERE).stage_to_global(stage_id=stage) for stage in range(2)] == [1, 5]
