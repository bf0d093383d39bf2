"""Rank arithmetic against a brute-force table and against DeepSpeed's own grid."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys

import pytest

from megatron.mpu.topology import Coordinates, Topology

SIZES = [(1, 1, 1), (2, 1, 1), (1, 2, 2), (2, 3, 4), (3, 2, 1), (2, 1, 3)]
SIZES_WITH_CONTEXT = [*((*sizes, 1) for sizes in SIZES), (1, 1, 1, 4), (2, 3, 2, 2), (1, 2, 3, 2)]


def _brute_force_grid(pipe, data, tensor, context):
    """Coordinates in rank order: the last axis runs fastest."""
    places = itertools.product(range(pipe), range(data), range(context), range(tensor))
    return [Coordinates(pipe=p, data=d, context=c, tensor=t) for p, d, c, t in places]


@pytest.mark.parametrize("sizes", SIZES_WITH_CONTEXT)
def test_ranks_and_coordinates_are_inverse_and_follow_the_table(sizes):
    topology = Topology(*sizes)
    grid = _brute_force_grid(*sizes)
    assert topology.world_size == len(grid)
    for rank, place in enumerate(grid):
        assert topology.coordinates(rank) == place
        assert topology.rank(pipe=place.pipe, data=place.data, context=place.context, tensor=place.tensor) == rank


@pytest.mark.parametrize("sizes", SIZES_WITH_CONTEXT)
@pytest.mark.parametrize(
    ("axis", "shared"),
    [
        ("tensor", ("pipe", "data", "context")),
        ("context", ("pipe", "data", "tensor")),
        ("data", ("pipe", "context", "tensor")),
        ("pipe", ("data", "context", "tensor")),
        ("model", ("data", "context")),
        ("replicas", ("pipe", "tensor")),
    ],
)
def test_groups_are_the_ranks_that_share_all_other_coordinates(sizes, axis, shared):
    grid = _brute_force_grid(*sizes)

    def key(rank):
        return [getattr(grid[rank], name) for name in shared]

    expected = {tuple(r for r in range(len(grid)) if key(r) == key(rank)) for rank in range(len(grid))}
    groups = Topology(*sizes).group_ranks(axis)
    assert set(groups) == expected
    assert sorted(itertools.chain(*groups)) == list(range(len(grid)))


DEEPSPEED_GROUPS = """
import json, sys
from deepspeed.runtime.pipe.topology import PipeModelDataParallelTopology
found = []
for pipe, data, tensor in json.loads(sys.argv[1]):
    grid = PipeModelDataParallelTopology(num_pp=pipe, num_mp=tensor, num_dp=data)
    places = [grid.get_coord(rank) for rank in range(pipe * data * tensor)]
    groups = {axis: grid.get_axis_comm_lists(name) for axis, name in dict(tensor="model", data="data", pipe="pipe").items()}
    found.append({"places": [[p.pipe, p.data, p.model] for p in places], "groups": groups})
print("ANSWER" + json.dumps(found))
"""


def test_the_grid_is_the_one_of_deepspeed():
    # In a process of its own: importing DeepSpeed starts threads, which later forked tests must not inherit.
    pytest.importorskip("importlib.util").find_spec("deepspeed") or pytest.skip("DeepSpeed is not installed")
    answer = subprocess.run(
        [sys.executable, "-c", DEEPSPEED_GROUPS, json.dumps(SIZES)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "DS_ACCELERATOR": "cpu"},
    )
    found = json.loads(answer.stdout.split("ANSWER")[1])
    for sizes, theirs in zip(SIZES, found, strict=True):
        topology = Topology(*sizes)
        ours = [topology.coordinates(rank) for rank in range(topology.world_size)]
        assert [[place.pipe, place.data, place.tensor] for place in ours] == theirs["places"]
        for axis, groups in theirs["groups"].items():
            # DeepSpeed leaves out axes of size one.
            expected = sorted(map(tuple, groups)) or [(rank,) for rank in range(topology.world_size)]
            assert sorted(topology.group_ranks(axis)) == expected, (sizes, axis)
