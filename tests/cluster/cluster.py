"""A whole cluster: three hosts that log in to each other, Slurm on the first two, and which `mpirun` is meant by which launcher."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.hosts import Hosts, hosts
from tests.cluster.requirements import intel_mpi
from tests.cluster.slurm import start_slurm
from tests.cluster.ssh import start_sshd

FAKES = Path(__file__).with_name("fakes")
"""Programs that stand for launchers nobody can install."""
MPIRUN = {"openmpi": "mpirun.openmpi", "mpich": "mpiexec.hydra"}
"""The program of each MPI; Debian lets `mpirun` be either."""


@contextlib.contextmanager
def cluster(*, slurm: bool) -> Iterator[Hosts]:
    """Start the cluster; nothing of it is left afterwards."""
    with hosts() as running:
        start_sshd(running)
        if slurm:
            start_slurm(running)
        for launcher, program in MPIRUN.items():
            directory = running.directory / "bin" / launcher
            directory.mkdir(parents=True)
            # Not a link: MPICH looks for its other programs beside the name by which it was called.
            (directory / "mpirun").write_text(f'#!/bin/sh\nexec {program} "$@"\n')
            (directory / "mpirun").chmod(0o755)
            (directory / "mpiexec").symlink_to("mpirun")
        for host in running:
            host.adopt()
        yield running


def programs(launcher: str, hosts: Hosts) -> Path:
    """The directory whose programs come before all others when this launcher is used."""
    if launcher in ("mvapich", "jsrun"):
        return FAKES
    return intel_mpi() or FAKES if launcher == "impi" else hosts.directory / "bin" / launcher
