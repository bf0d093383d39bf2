"""Which of several machines this is, by the variables of whatever has started deepy.py there."""

from __future__ import annotations

import pytest

from megatron.errors import LaunchError
from megatron.launcher.base import Host
from megatron.launcher.hosts.node_environment import NodeEnvironment, node_environment

OURS = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "first", "MASTER_PORT": "1234"}
STEP = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NODEID": "1"}


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        (OURS, NodeEnvironment(2, 1, "first", 1234)),
        ({**OURS, "NPROC_PER_NODE": "4"}, NodeEnvironment(2, 1, "first", 1234, 4)),
        ({**OURS, "NPROC_PER_NODE": "auto"}, NodeEnvironment(2, 1, "first", 1234)),
        ({f"PET_{name}": value for name, value in OURS.items()}, NodeEnvironment(2, 1, "first", 1234)),
        ({**OURS, "NNODES": "2:2"}, NodeEnvironment(2, 1, "first", 1234)),
        ({"WORLD_SIZE": "3", "RANK": "2", "MASTER_ADDR": "first"}, NodeEnvironment(3, 2, "first")),  # Kubeflow's pods
        ({**STEP, "SLURM_STEP_NODELIST": "n[07-08]"}, NodeEnvironment(2, 1, "n07")),
        ({**STEP, "MASTER_ADDR": "first"}, NodeEnvironment(2, 1, "first")),
        ({"NNODES": "1"}, NodeEnvironment(1, 0, "127.0.0.1")),
    ],
)
def test_the_place_of_this_machine(variables: dict[str, str], place: NodeEnvironment) -> None:
    assert node_environment(variables) == place


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, r"NNODES \(how many machines\) is not set"),
        ({"NNODES": "2", "MASTER_ADDR": "first"}, "NODE_RANK .* is not set"),
        ({"NNODES": "2", "NODE_RANK": "0"}, "the job has 2 machines and MASTER_ADDR is not set"),
        ({**OURS, "NODE_RANK": "2"}, "node 2 of 2: number the machines from 0 to 1"),
        ({**OURS, "NNODES": "two"}, 'NNODES is "two": it must be a whole number'),
        ({**OURS, "NODE_RANK": "-1"}, 'NODE_RANK is "-1"'),
        ({**OURS, "NNODES": "1:4"}, 'NNODES is "1:4": the number of machines is fixed here'),
        ({**OURS, "MASTER_PORT": "0"}, "MASTER_PORT is 0: a port is a number from 1 to 65535"),
        ({**OURS, "MASTER_PORT": "65536"}, "MASTER_PORT is 65536"),
        ({**OURS, "NPROC_PER_NODE": "all"}, 'NPROC_PER_NODE is "all"'),
        ({**OURS, "RANK": "3", "LOCAL_RANK": "1"}, r"torchrun \.\.\. train\.py"),
        ({**STEP, "SLURM_STEP_NUM_TASKS": "16"}, "started deepy.py 16 times on 2 machines"),
    ],
)
def test_what_is_missing_or_wrong_is_told(variables: dict[str, str], message: str) -> None:
    with pytest.raises(LaunchError, match=message):
        node_environment(variables)


def test_machines_without_names_are_numbered() -> None:
    assert NodeEnvironment(2, 0, "first").hosts(1) == (Host("node0", (0,)), Host("node1", (0,)))
    assert NodeEnvironment(1, 0, "first", ranks_per_node=2).hosts(8) == (Host("node0", (0, 1)),)
