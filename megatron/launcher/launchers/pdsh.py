"""Starts the agents by pdsh, which logs in on every machine by ssh."""

from __future__ import annotations

import shlex
import signal

from megatron.launcher.agent.options import agent_argv, agent_environment
from megatron.launcher.base import Command, Job
from megatron.launcher.launchers.programs import (
    START_DIRECTORY,
    check_names,
    check_script,
    extra_arguments,
    require_program,
)
from megatron.launcher.launchers.remote import RemoteLauncher

NUMBER_VARIABLE = "NEOX_NODE_NUMBER"
COMPLAINT = r"pdsh@[^:]+: (?P<host>.+): (ssh exited with exit code [1-9]\d*)"


class PdshLauncher(RemoteLauncher):
    """The launcher `pdsh`."""

    needs_ssh = True

    def check(self, job: Job) -> None:
        """Raise Conflict without pdsh or ssh, LaunchError when a host has a name that pdsh would take for a pattern."""
        require_program("pdsh", ("pdsh",), install="apt install pdsh, or dnf install pdsh-rcmd-ssh")
        require_program("pdsh", ("ssh",), install="apt install openssh-client, or dnf install openssh-clients")
        check_names(job, users=True, colons=True)
        check_script(job)

    def commands(self, job: Job) -> list[Command]:
        """One pdsh for all hosts.

        SIGINT is what ends it together with its ssh (in batch mode, -b); SIGTERM and SIGKILL leave these running.
        """
        names = [_target(host.name) for host in job.hosts]
        options = ("-R", "ssh", "-b", "-S", "-N", "-f", str(len(names)), "-w", ",".join(names))
        extra = extra_arguments(self._args, "pdsh")
        return [Command(("pdsh", *options, *extra, remote_line(job)), end_signal=signal.SIGINT, complaint=COMPLAINT)]


def remote_line(job: Job) -> str:
    """What a shell on the other machine runs. pdsh puts the number of the host for %n, and one per cent sign for two."""
    assignments = [f"{name}={value}" for name, value in agent_environment(job).items()]
    argv = shlex.join(("env", *assignments, *agent_argv(job, number_from=NUMBER_VARIABLE)))
    return f"cd {START_DIRECTORY} && {NUMBER_VARIABLE}=%n exec {argv.replace('%', '%%')}"


def _target(name: str) -> str:
    """A name as -w takes it: the way in goes before one with a colon, which would pass for such a way itself."""
    return f"ssh:{name}" if ":" in name else name
