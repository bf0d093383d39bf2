"""What the process manager Hydra is told, which comes with MPICH, Intel MPI and MVAPICH."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import ClassVar

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


class HydraLauncher(RemoteLauncher):
    """A launcher that runs Hydra's mpiexec. It carries its own environment to all agents, and so the job's token.

    name: in the menu; programs: which may be it; of, says: whose it is, and a word of its version that tells; install: where it comes from;
    settings: variables that keep the agents, whose ranks inherit it, from being bound to single cores.
    """

    name: str
    programs: tuple[str, ...]
    of: str
    says: str
    install: str
    settings: ClassVar[Mapping[str, str]] = {}

    def __init__(self, args: RunnerArgs) -> None:
        super().__init__(args)
        self._program = self.programs[0]

    @property
    def needs_ssh(self) -> bool:
        """Inside an allocation Hydra asks the scheduler, not ssh."""
        return not inside_allocation(os.environ)

    def check(self, job: Job) -> None:
        """Raise Conflict without this MPI, LaunchError for names of hosts that Hydra reads otherwise."""
        self._program = require_program(self.name, self.programs, of=self.of, says=self.says, install=self.install)
        check_names(job)
        check_script(job)

    def commands(self, job: Job) -> list[Command]:
        """One mpiexec for all hosts, with one process on each, numbered in their order."""
        hosts = ",".join(host.name for host in job.hosts)
        placing = ("-hosts", hosts, "-ppn", "1", "-wdir", START_DIRECTORY)
        extra = extra_arguments(self._args, self.name)
        agent = agent_argv(job, number_from="PMI_RANK", ends_parent=True)
        argv = (self._program, *placing, *extra, "-n", str(len(job.hosts)), *agent)
        return [Command(argv, {**agent_environment(job), **self.settings})]
