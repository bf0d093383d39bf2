"""Starts the agents by srun, as one step of a Slurm allocation that we are in."""

from __future__ import annotations

import os

from megatron.errors import LaunchError
from megatron.launcher.agent.options import agent_argv, agent_environment
from megatron.launcher.base import Command, Job
from megatron.launcher.hosts.slurm import allocated_nodes
from megatron.launcher.launchers.programs import START_DIRECTORY, check_script, extra_arguments, require_program
from megatron.launcher.launchers.remote import RemoteLauncher
from megatron.neox_arguments.conflict import Conflict

OF_THE_JOB = (
    *("SLURM_NTASKS_PER_NODE", "SLURM_CPUS_PER_TASK", "SRUN_CPUS_PER_TASK", "SLURM_TRES_PER_TASK", "SLURM_CPU_BIND"),
    *("SLURM_GPUS_PER_TASK", "SLURM_GPU_BIND", "SLURM_NTASKS_PER_GPU", "SLURM_DISTRIBUTION"),
    *("SLURM_MEM_PER_CPU", "SLURM_MEM_PER_GPU", "SLURM_MEM_PER_NODE"),
)
"""Variables that tell what each task of the job was to have. srun would give an agent no more, who starts all the ranks of its machine."""


class SlurmLauncher(RemoteLauncher):
    """The launcher `slurm`."""

    needs_ssh = False

    def check(self, job: Job) -> None:
        """Raise LaunchError outside an allocation, Conflict for hosts that do not belong to it."""
        require_program("slurm", ("srun",), install="which comes with Slurm: log in to a machine of the cluster")
        nodes = allocated_nodes(os.environ)
        if not nodes:
            raise LaunchError(
                'launcher "slurm" starts the job on the machines of an allocation, and this shell is in none: put the command into a job script '
                "(sbatch tools/slurm/train.sbatch), or open one with salloc --nodes=N"
            )
        strangers = [host.name for host in job.hosts if host.name not in nodes]
        if strangers:
            keys = ("launcher", "hostfile") if self._args.hostfile else ("launcher",)
            raise Conflict(
                keys,
                f"{', '.join(strangers)} {'is' if len(strangers) == 1 else 'are'} not in the allocation {os.environ['SLURM_JOB_ID']}, which has "
                f"{', '.join(nodes)}; remove the hostfile to use all of them",
            )
        check_script(job)

    def commands(self, job: Job) -> list[Command]:
        """One srun with a task a node, which may use all that the allocation has there, beside whatever else runs in it."""
        count = str(len(job.hosts))
        step = (
            *("--nodes", count, "--ntasks", count, "--ntasks-per-node", "1"),
            *("--nodelist", ",".join(host.name for host in job.hosts)),
            *("--overlap", "--mem", "0", "--cpu-bind", "none", "--kill-on-bad-exit=1", "--quit-on-interrupt"),
            *("--input", "none", "--export", "ALL", "--chdir", START_DIRECTORY),
        )
        keys = {"--comment": self._args.comment, "--account": self._args.account}
        accounting = [word for option, value in keys.items() if value for word in (option, value)]
        extra = extra_arguments(self._args, "slurm")
        agent = agent_argv(job, node_from="SLURMD_NODENAME")
        argv = ("srun", *step, *accounting, *extra, *agent)
        return [Command(argv, agent_environment(job), without=OF_THE_JOB, reports=True)]
