"""Where a rank learns its place, and what its process environment starts with."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from megatron.environment import (
    STARTED_VARIABLE,
    RankEnvironment,
    available_cores,
    first_slurm_node,
    job_id,
    job_start,
    note_start,
    rank_defaults,
    read_rank_environment,
    restart_count,
)
from megatron.errors import LaunchError


def test_a_process_that_nothing_started_is_rank_0_of_1():
    assert read_rank_environment({}) == RankEnvironment(0, 0, 1, 1, "127.0.0.1", 29500)


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"},
        {
            "OMPI_COMM_WORLD_RANK": "5",
            "OMPI_COMM_WORLD_SIZE": "8",
            "OMPI_COMM_WORLD_LOCAL_RANK": "1",
            "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
        },
        {"PMI_RANK": "5", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "4"},
        {
            "MV2_COMM_WORLD_RANK": "5",
            "MV2_COMM_WORLD_SIZE": "8",
            "MV2_COMM_WORLD_LOCAL_RANK": "1",
            "MV2_COMM_WORLD_LOCAL_SIZE": "4",
        },
        {
            "SLURM_STEP_ID": "0",
            "SLURM_PROCID": "5",
            "SLURM_NTASKS": "8",
            "SLURM_LOCALID": "1",
            "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
            "SLURM_NODEID": "1",
        },
    ],
    ids=["torchrun", "openmpi", "mpich", "mvapich", "slurm"],
)
def test_every_launcher_gives_the_same_place(variables):
    place = read_rank_environment({**variables, "MASTER_ADDR": "node1", "MASTER_PORT": "1234"})
    assert place == RankEnvironment(
        rank=5, local_rank=1, world_size=8, local_world_size=4, master_addr="node1", master_port=1234
    )


def test_mpi_inside_a_slurm_step_counts_before_the_step_of_its_daemons():
    mpi = {
        "OMPI_COMM_WORLD_RANK": "1",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_LOCAL_RANK": "1",
        "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    }
    daemon = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_LOCALID": "0"}
    assert read_rank_environment({**daemon, **mpi}).rank == 1


def test_the_shell_of_a_slurm_batch_script_is_not_a_rank():
    assert read_rank_environment({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"}).world_size == 1


def test_slurm_names_the_master_when_nobody_else_does():
    step = {
        "SLURM_STEP_ID": "0",
        "SLURM_PROCID": "2",
        "SLURM_STEP_NUM_TASKS": "3",
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": "1",
        "SLURM_STEP_TASKS_PER_NODE": "2,1",
    }
    assert read_rank_environment({**step, "SLURM_STEP_NODELIST": "gpu[03-04]"}).master_addr == "gpu03"


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu[03-07,12],login1", "gpu03"),
        ("a1,a2", "a1"),
        ("single", "single"),
        ("rack[2,4]-node", "rack2-node"),
        ("n[11]", "n11"),
    ],
)
def test_the_first_node_of_a_slurm_list(nodes, first):
    assert first_slurm_node(nodes) == first


def test_several_machines_need_a_master_address():
    variables = {
        "OMPI_COMM_WORLD_RANK": "1",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_LOCAL_RANK": "0",
        "OMPI_COMM_WORLD_LOCAL_SIZE": "1",
    }
    with pytest.raises(LaunchError, match="MASTER_ADDR is not set"):
        read_rank_environment(variables)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "4", "WORLD_SIZE": "4", "LOCAL_RANK": "0"}, "rank 4 of 4"),
        ({"RANK": "one", "WORLD_SIZE": "4"}, 'RANK is "one"'),
        ({"RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "a"}, "set LOCAL_RANK"),
    ],
)
def test_wrong_variables_are_explained(variables, message):
    with pytest.raises(LaunchError, match=message):
        read_rank_environment(variables)


def test_export_writes_what_torch_reads(monkeypatch):
    place = RankEnvironment(3, 1, 4, 2, "host", 1234)
    for name in place.variables():
        monkeypatch.setenv(name, "stale")
    place.export()
    assert read_rank_environment(os.environ) == place


def test_cores_are_divided_among_the_ranks_of_a_machine():
    assert rank_defaults(local_world_size=1, accelerators=False, environment={})["OMP_NUM_THREADS"] == str(
        available_cores()
    )
    assert rank_defaults(local_world_size=1000, accelerators=False, environment={})["OMP_NUM_THREADS"] == "1"


def test_what_the_user_set_stays():
    defaults = rank_defaults(
        local_world_size=2, accelerators=False, environment={"OMP_NUM_THREADS": "7", "DS_ACCELERATOR": "xpu"}
    )
    assert "OMP_NUM_THREADS" not in defaults
    assert "DS_ACCELERATOR" not in defaults


def test_ranks_on_accelerators_keep_the_allocator_and_the_accelerator():
    gpu = rank_defaults(local_world_size=2, accelerators=True, environment={})
    cpu = rank_defaults(local_world_size=2, accelerators=False, environment={})
    assert cpu.keys() - gpu.keys() == {"DS_ACCELERATOR", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_"}
    assert cpu["DS_ACCELERATOR"] == "cpu"


def test_extensions_are_kept_apart_from_other_installations(monkeypatch):
    folder = rank_defaults(local_world_size=1, accelerators=True, environment={"XDG_CACHE_HOME": "/cache"})[
        "TORCH_EXTENSIONS_DIR"
    ]
    monkeypatch.setattr("sys.prefix", "/another/environment")
    other = rank_defaults(local_world_size=1, accelerators=True, environment={"XDG_CACHE_HOME": "/cache"})[
        "TORCH_EXTENSIONS_DIR"
    ]
    assert folder.startswith("/cache/")
    assert folder != other


def test_processes_know_when_their_job_began_unless_a_new_one_begins():
    variables: dict[str, str] = {}
    note_start(variables)
    began = job_start(variables)
    assert abs(began - time.time()) < 60
    variables[STARTED_VARIABLE] = "1000.5"
    note_start(variables)
    assert job_start(variables) == 1000.5
    note_start(variables, anew=True)
    assert job_start(variables) >= began


def test_ranks_that_torchrun_starts_again_know_when_torchrun_began(monkeypatch):
    """They are told nothing by their predecessors; what those have saved would count for nothing."""
    before = time.time()
    torchrun = subprocess.Popen(["sleep", "60"])
    after = time.time()
    monkeypatch.setattr("megatron.environment.os.getppid", lambda: torchrun.pid)
    time.sleep(0.2)
    first, second = {"TORCHELASTIC_RESTART_COUNT": "0"}, {"TORCHELASTIC_RESTART_COUNT": "1"}
    note_start(first)
    note_start(second)
    torchrun.kill()
    torchrun.wait()
    assert job_start(first) > after + 0.1
    assert before - 0.05 < job_start(second) < after + 0.05  # the kernel counts in hundredths of a second


def test_restarts_are_counted_by_whoever_starts_the_ranks():
    assert restart_count({}) == 0
    assert restart_count({"TORCHELASTIC_RESTART_COUNT": "2"}) == 2


def test_a_job_may_have_a_name():
    assert job_id({"NEOX_JOB": "4f2a"}) == "4f2a"
    assert job_id({}) is None
    assert job_id({"NEOX_JOB": ""}) is None
