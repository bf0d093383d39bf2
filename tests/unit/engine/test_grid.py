"""Our process groups as DeepSpeed sees them."""

from __future__ import annotations

from megatron.engine.grid import Grid
from megatron.mpu.groups import Group, ProcessGroups
from megatron.mpu.topology import Topology

# Rank 15 of a pipeline of 2 x data 2 x context 2 x tensor 2: 1, 1, 1 and 1. Handles are never used here.
HERE = ProcessGroups(
    topology=Topology(2, 2, 2, 2),
    rank=15,
    tensor=Group(1, 2, (14, 15)),
    data=Group(1, 2, (11, 15)),
    context=Group(1, 2, (13, 15)),
    replicas=Group(3, 4, (9, 11, 13, 15)),
    pipe=Group(1, 2, (7, 15)),
    model=Group(3, 4, (6, 7, 14, 15)),
    world=Group(15, 16, tuple(range(16))),
)


def test_places_and_sizes_are_those_of_the_groups() -> None:
    grid = Grid(HERE)
    assert (grid.get_global_rank(), grid.get_stage_id(), grid.get_data_parallel_id()) == (15, 1, 3)
    assert (grid.get_slice_parallel_rank(), grid.get_tensor_model_parallel_world_size()) == (1, 2)
    assert (grid.get_model_parallel_rank(), grid.get_model_parallel_world_size()) == (3, 4)
    assert (grid.get_data_parallel_world_size(), grid.get_pipe_parallel_world_size()) == (4, 2)
    assert grid.get_data_parallel_group_ranks() == [9, 11, 13, 15]
    assert grid.pp_group == [7, 15]


def test_other_stages_are_those_with_our_other_coordinates() -> None:
    assert [Grid(HERE).stage_to_global(stage_id=stage) for stage in range(2)] == [7, 15]
