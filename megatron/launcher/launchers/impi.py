"""Starts the agents by Intel MPI's mpiexec."""

from __future__ import annotations

from typing import ClassVar

from megatron.launcher.launchers.hydra import HydraLauncher


class IntelMPILauncher(HydraLauncher):
    """The launcher `impi`. Intel MPI pins processes to cores unless it is told not to."""

    name = "impi"
    programs = ("mpiexec.hydra", "mpiexec", "mpirun")
    of = "Intel MPI"
    says = "Intel(R) MPI"
    install = "source Intel's setvars.sh, or module load intel-mpi"
    settings: ClassVar = {"I_MPI_PIN": "0"}
