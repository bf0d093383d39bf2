"""Starts the agents by Open MPI's mpirun. They are no MPI programs; Open MPI carries them there and tells each its number."""

from __future__ import annotations

import os

from megatron.launcher.agent.options import agent_argv, agent_environment
from megatron.launcher.base import Command, Job
from megatron.launcher.hosts.scheduler import inside_allocation
from megatron.launcher.launchers.programs import (
    START_DIRECTORY,
    check_names,
    check_script,
    extra_arguments,
    require_program,
)
from megatron.launcher.launchers.remote import RemoteLauncher
from megatron.neox_arguments.keys.runner import RunnerArgs

PROGRAMS = ("mpirun", "mpirun.openmpi", "orterun")


class OpenMPILauncher(RemoteLauncher):
    """The launcher `openmpi`."""

    def __init__(self, args: RunnerArgs) -> None:
        super().__init__(args)
        self._program = PROGRAMS[0]

    @property
    def needs_ssh(self) -> bool:
        """Inside an allocation mpirun asks the scheduler, not ssh."""
        return not inside_allocation(os.environ)

    def check(self, job: Job) -> None:
        """Raise Conflict without Open MPI, LaunchError for names of hosts that its option --host reads otherwise."""
        self._program = require_program(
            "openmpi",
            PROGRAMS,
            of="Open MPI",
            says="open-mpi.org",
            install="apt install openmpi-bin, or module load openmpi",
        )
        check_names(job)
        check_script(job)

    def commands(self, job: Job) -> list[Command]:
        """One mpirun for all hosts; it gives the variables of the agents (-x) from its own environment, away from command lines.

        Mapped by seq, the numbers follow the list of hosts; otherwise the machine of mpirun would come first, wherever it stands there.
        """
        environment = agent_environment(job)
        if os.geteuid() == 0:  # it warns root, who has started deepy.py already
            environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        hosts = ",".join(host.name for host in job.hosts)
        placing = ("-np", str(len(job.hosts)), "--host", hosts, "--map-by", "seq", "--bind-to", "none")
        passed = [word for name in agent_environment(job) for word in ("-x", name)]
        extra = extra_arguments(self._args, "openmpi")
        agent = agent_argv(job, number_from="OMPI_COMM_WORLD_RANK", ends_parent=True)
        argv = (self._program, *placing, "--wdir", START_DIRECTORY, *passed, *extra, *agent)
        return [Command(argv, environment)]
