"""Starts the agents by MVAPICH's mpiexec, a Hydra."""

from __future__ import annotations

from typing import ClassVar

from megatron.launcher.launchers.hydra import HydraLauncher


class MVAPICHLauncher(HydraLauncher):
    """The launcher `mvapich`. MVAPICH pins processes to cores, also those they start, unless it is told not to."""

    name = "mvapich"
    programs = ("mpiexec.hydra", "mpiexec", "mpirun")
    of = "MVAPICH"
    says = "HYDRA"
    install = "build MVAPICH, or module load mvapich2"
    settings: ClassVar = {"MV2_ENABLE_AFFINITY": "0", "MVP_ENABLE_AFFINITY": "0"}
