"""Runs a job on this machine: one agent, which starts one process per slot."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from megatron.components import LAUNCHERS
from megatron.errors import LaunchError, MissingRequirement
from megatron.launcher.addresses import LOOPBACK
from megatron.launcher.agent.options import agent_argv, agent_environment
from megatron.launcher.base import Command, HeadPlace, Host, Job
from megatron.launcher.hosts.resolve import is_this_machine
from megatron.neox_arguments.conflict import Conflict
from megatron.neox_arguments.keys.runner import RunnerArgs


class LocalLauncher:
    """The launcher `local`."""

    needs_ssh = False
    forwards = False
    holds_head = True

    def __init__(self, args: RunnerArgs) -> None:
        self._args = args

    def check(self, job: Job) -> None:
        """Raise Conflict when the job wants another machine than this one, LaunchError when the script is not there, MissingRequirement without torch."""
        if len(job.hosts) != 1 or not is_this_machine(job.hosts[0]):
            names = ", ".join(host.name for host in job.hosts)
            keys = [key for key in ("launcher", "hostfile", "include") if getattr(self._args, key)]
            reason = f"this launcher starts processes on this machine only, but the hosts are {names}"
            raise Conflict(keys, f"{reason}; {_way_out(keys)}")
        if not Path(job.script).is_file():
            raise LaunchError(f'the script "{job.script}" does not exist: give the path of one, e.g. train.py')
        if importlib.util.find_spec("torch") is None:
            raise MissingRequirement(
                f"torch is not installed for {sys.executable}: add it with pip install -r requirements/requirements-torch.txt"
            )

    def head_place(self, hosts: Sequence[Host]) -> HeadPlace:
        """On this machine alone, where nobody else can connect."""
        return HeadPlace((LOOPBACK,))

    def commands(self, job: Job) -> list[Command]:
        """One command, the agent."""
        (host,) = job.hosts
        argv = agent_argv(job, node=host.name)
        return [Command(argv, agent_environment(job), awaits_signals=True, interactive=True)]


def _way_out(keys: Sequence[str]) -> str:
    """What to do about hosts that are not this machine; another launcher is only named where there is one."""
    named = " and ".join(key for key in keys if key != "launcher") or "DLTS_HOSTFILE from the environment"
    others = [name for name in LAUNCHERS.names if name != "local"]
    other = f", or set launcher to one of {', '.join(others)}" if others else ""
    return f"remove {named} to use this machine, or keep it alone in the hostfile{other}"
