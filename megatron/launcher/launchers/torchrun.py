"""Joins the deepy.py that something else has started on every machine (Kubernetes, srun, a loop over ssh): its variables say who is who."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

from megatron.errors import LaunchError
from megatron.launcher.agent.options import agent_argv, agent_environment
from megatron.launcher.base import Command, HeadPlace, Host, Job
from megatron.launcher.hosts.node_environment import node_environment
from megatron.launcher.launchers.programs import check_script
from megatron.neox_arguments.keys.runner import RunnerArgs


class TorchrunLauncher:
    """The launcher `torchrun`, called after the program whose variables it reads; it runs nothing but our agent."""

    needs_ssh = False
    forwards = False

    def __init__(self, args: RunnerArgs) -> None:
        self._place = node_environment(os.environ)

    @property
    def holds_head(self) -> bool:
        """The agents of all machines connect to the deepy.py of the first."""
        return self._place.node_rank == 0

    def head_place(self, hosts: Sequence[Host]) -> HeadPlace:
        """At the address and port that all machines were told; its token, unless they were told one, keeps jobs apart, but no intruders out."""
        place = self._place
        name = f"{place.master_addr}:{place.master_port}, {place.nodes} machines"
        return HeadPlace((place.master_addr,), place.master_port, hashlib.sha256(name.encode()).hexdigest())

    def check(self, job: Job) -> None:
        """Raise LaunchError when hosts were left out, who have started deepy.py already, or the script is not here; MissingRequirement without torch."""
        if len(job.hosts) != self._place.nodes:
            raise LaunchError(
                f"deepy.py was started on {self._place.nodes} machines, but the keys leave {len(job.hosts)}: remove hostfile, include, exclude and "
                "num_nodes, and start it on those machines only"
            )
        check_script(job)

    def commands(self, job: Job) -> list[Command]:
        """The agent of this machine alone. Where the head is elsewhere, it is the agent who says how the job ended."""
        name = job.hosts[self._place.node_rank].name
        agent = agent_argv(job, node=name, conclude=not self.holds_head)
        return [Command(agent, agent_environment(job), awaits_signals=True, interactive=self.holds_head)]
