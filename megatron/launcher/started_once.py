"""Refuses a deepy.py that something has started several times: each would run the whole job, in the same directory.

Variables: the manual pages of srun and mpirun (Open MPI), and what Hydra and torchrun set for the processes they start.
"""

from __future__ import annotations

from collections.abc import Mapping

from megatron.errors import LaunchError
from megatron.launcher.hosts.slurm import tasks_of_step

_COUNTED_BY = {"OMPI_COMM_WORLD_SIZE": "mpirun", "PMI_SIZE": "mpiexec"}


def check_started_once(environment: Mapping[str, str]) -> None:
    """Raise LaunchError when we are one of several copies. Only the launcher `torchrun` has one on each machine."""
    copies = [
        ("srun", tasks_of_step(environment)),
        *((program, _number(environment, name)) for name, program in _COUNTED_BY.items()),
        ("torchrun", _number(environment, "WORLD_SIZE") if {"RANK", "LOCAL_RANK"} <= environment.keys() else 1),
    ]
    for program, count in copies:
        if count > 1:
            raise LaunchError(
                f"{program} has started deepy.py {count} times, and each would start the whole job: run it once, without {program}"
            )


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "1")
    return int(text) if text.isdecimal() else 1
