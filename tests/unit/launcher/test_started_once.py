"""Several copies of deepy.py are refused, whatever has started them."""

from __future__ import annotations

import pytest

from megatron.errors import LaunchError
from megatron.launcher.started_once import check_started_once

SEVERAL = {
    "srun": {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4"},
    "mpirun": {"OMPI_COMM_WORLD_SIZE": "4"},
    "mpiexec": {"PMI_SIZE": "4"},
    "torchrun": {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "4"},
}


@pytest.mark.parametrize("program", SEVERAL)
def test_one_of_several_copies_is_told_who_has_started_them(program: str) -> None:
    with pytest.raises(LaunchError, match=rf"^{program} has started deepy\.py 4 times, .* without {program}$"):
        check_started_once(SEVERAL[program])


@pytest.mark.parametrize("program", SEVERAL)
def test_a_single_copy_is_no_mistake(program: str) -> None:
    check_started_once({name: "1" if value == "4" else value for name, value in SEVERAL[program].items()})


def test_what_speaks_of_a_job_or_of_pods_counts_no_copies() -> None:
    check_started_once({"SLURM_JOB_ID": "7", "SLURM_STEP_NUM_TASKS": "4"})  # in the shell of an allocation
    check_started_once({"RANK": "0", "WORLD_SIZE": "4"})
