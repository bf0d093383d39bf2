"""What the head tells an agent to run, and the environment of each rank."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from megatron.environment import JOB_VARIABLE, STARTED_VARIABLE, RankEnvironment, rank_defaults
from megatron.errors import LaunchError
from megatron.launcher.addresses import LOOPBACK
from megatron.launcher.agent.logs import RankLog
from megatron.launcher.agent.network import interface_of
from megatron.launcher.agent.options import TOKEN_VARIABLE
from megatron.launcher.base import DEFAULT_GRACE_SECONDS
from megatron.launcher.devices import restrict_devices
from megatron.launcher.worker import READY_VARIABLE

RUN_ID = "neox"


def wants_cpu(variables: Mapping[str, str]) -> bool:
    """Whether ranks are to compute on the CPU although there may be accelerators."""
    return variables.get("CUDA_VISIBLE_DEVICES") == ""


@dataclass(frozen=True)
class Work:
    """One attempt of one machine: `ranks` ranks from `first_rank` on, out of `world_size` on `nodes` machines, of which this is `node_rank`.

    slots: the devices to use; environment: variables for every rank; job: its name, the same in all attempts; age: seconds since the job began,
    which says the same on machines whose clocks differ; the others as in `Job`.
    """

    script: str
    arguments: tuple[str, ...] = ()
    directory: str = "."
    environment: Mapping[str, str] = field(default_factory=dict)
    slots: tuple[int, ...] = (0,)
    first_rank: int = 0
    world_size: int = 1
    node: str = "localhost"
    node_rank: int = 0
    nodes: int = 1
    master_addr: str = LOOPBACK
    master_port: int = 0
    restarts: int = 0
    max_restarts: int = 0
    job: str = ""
    age: float = 0.0
    grace_seconds: float = DEFAULT_GRACE_SECONDS
    log_dir: str | None = None
    interactive: bool = False

    def to_message(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)

    @classmethod
    def from_message(cls, content: Mapping[str, Any]) -> Self:
        """What `to_message` gave, after a journey as JSON."""
        lists = {name: tuple(content[name]) for name in ("arguments", "slots")}
        return cls(**{name: value for name, value in content.items() if name != "kind"} | lists)

    @property
    def ranks(self) -> range:
        """The ranks of this machine."""
        return range(self.first_rank, self.first_rank + len(self.slots))

    def enter(self) -> None:
        """Go to the directory of the job. Raises LaunchError when it, or the script, is not on this machine."""
        here = os.uname().nodename
        try:
            os.chdir(self.directory)
        except OSError as error:
            raise LaunchError(
                f"{self.directory} cannot be entered on {here} ({error.strerror}): the job runs in the same directory on every machine, on a "
                "shared file system or as a copy"
            ) from None
        if not Path(self.script).is_file():
            raise LaunchError(f'the script "{self.script}" does not exist on {here} (in {os.getcwd()}): copy it there')

    def logs(self) -> dict[int, RankLog]:
        """The log of each rank; none where ranks print to the console."""
        if self.log_dir is None:
            return {}
        again = f", restart {self.restarts} of {self.max_restarts}" if self.restarts else ""
        titles = {rank: f"rank {rank} of {self.world_size} on {self.node}{again}" for rank in self.ranks}
        folder = Path(self.log_dir)
        return {rank: RankLog(folder, rank, on_console=rank == 0, title=title) for rank, title in titles.items()}

    def environments(self, ours: Mapping[str, str], *, devices: int, own_address: str) -> dict[int, dict[str, str]]:
        """The environment of each rank: that of the agent, the job's, and the rank's place.

        Variables for ranks that the user has not set get the values of `rank_defaults`. ours: environment of the agent; devices: accelerators
        of this machine; own_address: with which it reaches the head.
        """
        base = {name: value for name, value in {**ours, **self.environment}.items() if name != TOKEN_VARIABLE}
        all_slots = self.slots == tuple(range(len(self.slots)))
        restricted = {} if all_slots else restrict_devices(self.slots, count=devices, environment=base)
        defaults = rank_defaults(
            local_world_size=len(self.slots), accelerators=devices > 0 and not wants_cpu(base), environment=base
        )
        network = self._network(base, own_address)
        common = {**base, **defaults, **restricted, **network, **self._elastic(), READY_VARIABLE: "1"}
        return {rank: {**common, **self._place(rank).variables()} for rank in self.ranks}

    def _place(self, rank: int) -> RankEnvironment:
        return RankEnvironment(
            rank=rank,
            local_rank=rank - self.first_rank,
            world_size=self.world_size,
            local_world_size=len(self.slots),
            master_addr=self.master_addr,
            master_port=self.master_port,
        )

    def _network(self, variables: Mapping[str, str], own_address: str) -> dict[str, str]:
        """gloo takes the interface of the host name's address, which on many machines is a loopback: rather the one that leads to the head."""
        if self.nodes == 1 or "GLOO_SOCKET_IFNAME" in variables:
            return {}
        interface = interface_of(own_address)
        return {"GLOO_SOCKET_IFNAME": interface} if interface else {}

    def _elastic(self) -> dict[str, str]:
        """What torch's elastic agent would tell: above all that the store is open already, and how often the ranks have been started again."""
        return {
            "GROUP_RANK": str(self.node_rank),
            "GROUP_WORLD_SIZE": str(self.nodes),
            "TORCHELASTIC_RUN_ID": RUN_ID,
            "TORCHELASTIC_RESTART_COUNT": str(self.restarts),
            "TORCHELASTIC_MAX_RESTARTS": str(self.max_restarts),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            JOB_VARIABLE: self.job,
            STARTED_VARIABLE: repr(time.time() - self.age),
        }
