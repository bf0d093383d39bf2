"""What Slurm's variables say about an allocation."""

from __future__ import annotations

import pytest

from megatron.environment import expand_slurm_counts
from megatron.errors import LaunchError
from megatron.launcher.hosts.slurm import (
    allocated_nodes,
    expand_node_list,
    slots_of_nodes,
    tasks_of_step,
)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ""),
        ("gpu1", "gpu1"),
        ("gpu[03-05,12],login1", "gpu03 gpu04 gpu05 gpu12 login1"),
        ("n[8-11]", "n8 n9 n10 n11"),
        ("n[08-11]-ib", "n08-ib n09-ib n10-ib n11-ib"),
        ("r[1-2]n[1,3]", "r1n1 r1n3 r2n1 r2n3"),
        ("a[1-2],b-[3].x,c", "a1 a2 b-3.x c"),
        ("rack[0-1]row[1-2]node[7-8]", "rack0row1node7 rack0row1node8 rack0row2node7 rack0row2node8 "
         "rack1row1node7 rack1row1node8 rack1row2node7 rack1row2node8"),
    ],
)  # fmt: skip
def test_node_lists_are_expanded(text: str, names: str) -> None:
    assert expand_node_list(text) == tuple(names.split())


@pytest.mark.parametrize("text", ["n[1-", "n]1[", "n[1-x]", "n[]", "a,,b", "n[1[2]]"])
def test_what_is_no_node_list_is_refused(text: str) -> None:
    with pytest.raises(LaunchError, match="is no node list: set hostfile"):
        expand_node_list(text)


def test_a_node_list_counts_inside_an_allocation_only() -> None:
    assert allocated_nodes({"SLURM_JOB_NODELIST": "n[1-2]"}) == ()
    assert allocated_nodes({"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_ID": "7"}) == ("n1", "n2")


def test_the_shell_of_a_job_script_is_one_task() -> None:
    assert tasks_of_step({"SLURM_STEP_NUM_TASKS": "8"}) == 1
    assert tasks_of_step({"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_ID": "0"}) == 8


@pytest.mark.parametrize(("text", "counts"), [("2(x3),1", [2, 2, 2, 1]), ("8", [8]), ("", []), ("2(x", [])])
def test_counts_are_expanded(text: str, counts: list[int]) -> None:
    assert expand_slurm_counts(text) == counts


TASKS = {"SLURM_TASKS_PER_NODE": "4,2"}


@pytest.mark.parametrize(
    ("variables", "devices", "slots"),
    [
        ({}, 0, [1, 1]),
        (TASKS, 0, [1, 1]),  # cores that nobody asked tasks for
        ({**TASKS, "SLURM_NTASKS": "6"}, 0, [4, 2]),
        ({"SLURM_TASKS_PER_NODE": "4(x2)", "SLURM_NTASKS_PER_NODE": "4"}, 0, [4, 4]),
        ({"SLURM_TASKS_PER_NODE": "4", "SLURM_NTASKS_PER_NODE": "4"}, 0, [1, 1]),  # of a smaller step
        ({**TASKS, "SLURM_NTASKS": "6"}, 8, [8, 8]),
        ({"SLURM_GPUS_ON_NODE": "4"}, 8, [4, 4]),
        ({"SLURM_GPUS_PER_NODE": "a100:2,h100:1"}, 0, [3, 3]),
        ({"SLURM_JOB_GPUS": "0,1,2"}, 0, [3, 3]),
        ({"SLURM_GPUS_ON_NODE": "4", "CUDA_VISIBLE_DEVICES": ""}, 8, [1, 1]),
        ({"SLURM_GPUS_ON_NODE": "4", "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, 4, [4, 4]),
    ],
)
def test_slots_are_gpus_else_tasks_that_were_asked_for_else_one(
    variables: dict[str, str], devices: int, slots: list[int]
) -> None:
    assert slots_of_nodes(variables, 2, lambda: devices) == slots
