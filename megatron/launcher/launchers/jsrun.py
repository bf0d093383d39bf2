"""Starts the agents by jsrun (IBM's Job Step Manager), inside an allocation of LSF."""

from __future__ import annotations

import os
import shlex

from megatron.errors import LaunchError
from megatron.launcher.agent.options import agent_argv, agent_environment
from megatron.launcher.base import Command, Job
from megatron.launcher.hosts.lsf import allocated_hosts
from megatron.launcher.launchers.programs import START_DIRECTORY, check_script, extra_arguments, require_program
from megatron.launcher.launchers.remote import RemoteLauncher
from megatron.neox_arguments.conflict import Conflict

NODE_VARIABLE = "NEOX_NODE"


class JsrunLauncher(RemoteLauncher):
    """The launcher `jsrun`."""

    needs_ssh = False

    def check(self, job: Job) -> None:
        """Raise LaunchError outside an allocation, Conflict unless its hosts are used from the first on: jsrun chooses them itself."""
        require_program("jsrun", ("jsrun",), install="which comes with LSF: log in to a machine of the cluster")
        hosts = allocated_hosts(os.environ)
        if not hosts:
            raise LaunchError(
                'launcher "jsrun" starts the job on the machines of an LSF allocation, and this shell is in none: submit the command with bsub -nnodes N'
            )
        names = [host.name for host in job.hosts]
        if names != list(hosts)[: len(names)]:
            keys = [key for key in ("launcher", "hostfile", "include", "exclude") if getattr(self._args, key)]
            raise Conflict(
                keys,
                f"jsrun fills the machines of the allocation from the first on ({', '.join(hosts)}), which cannot be {', '.join(names)}; "
                "choose the first ones by num_nodes, or all",
            )
        check_script(job)

    def commands(self, job: Job) -> list[Command]:
        """One jsrun with one resource set a host, which holds all its cores and GPUs. A shell there tells the agent the host's name."""
        placing = ("--nrs", str(len(job.hosts)), "--rs_per_host", "1", "--tasks_per_rs", "1")
        resources = ("--cpu_per_rs", "ALL_CPUS", "--gpu_per_rs", "ALL_GPUS", "--bind", "none")
        agent = shlex.join(agent_argv(job, node_from=NODE_VARIABLE))
        shell = ("sh", "-c", f"{NODE_VARIABLE}=$(hostname) exec {agent}")
        extra = extra_arguments(self._args, "jsrun")
        return [
            Command(("jsrun", *placing, *resources, "--chdir", START_DIRECTORY, *extra, *shell), agent_environment(job))
        ]
