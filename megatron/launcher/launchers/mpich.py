"""Starts the agents by MPICH's mpiexec."""

from __future__ import annotations

from megatron.launcher.launchers.hydra import HydraLauncher


class MPICHLauncher(HydraLauncher):
    """The launcher `mpich`. Without an option, its Hydra binds nothing to cores."""

    name = "mpich"
    programs = ("mpiexec.hydra", "mpiexec.mpich", "mpiexec", "mpirun.mpich", "mpirun")
    of = "MPICH"
    says = "HYDRA"
    install = "apt install mpich, or module load mpich"
