"""What a launcher is: a pure function from a job to the commands that start it, which can be printed instead of run.

A new launcher is one file with a class of this protocol, and one line in `megatron/components.py`. It is built from the launcher
keys of the config (`RunnerArgs`); what all launchers need alike is in `Job`.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from megatron.environment import DEFAULT_MASTER_PORT

DEFAULT_GRACE_SECONDS = 120.0


@dataclass(frozen=True)
class Host:
    """One machine and the devices of it that are used; on a machine without accelerators a slot is a CPU process."""

    name: str
    slots: tuple[int, ...]


@dataclass(frozen=True)
class Job:
    """One run of a script, on every slot of every host.

    environment: variables to set for every rank; grace_seconds: how long ranks may take to save and exit after a signal; max_restarts: how
    often ranks are started again after a crash; saves: whether the script saves what it does, so that nothing is lost when it is stopped.
    """

    script: str
    arguments: tuple[str, ...]
    hosts: tuple[Host, ...]
    master_addr: str = "127.0.0.1"
    master_port: int = DEFAULT_MASTER_PORT
    environment: Mapping[str, str] = field(default_factory=dict)
    grace_seconds: float = DEFAULT_GRACE_SECONDS
    max_restarts: int = 0
    saves: bool = False

    @property
    def world_size(self) -> int:
        return sum(len(host.slots) for host in self.hosts)


@dataclass(frozen=True)
class Command:
    """One program to start on this machine. environment: variables it gets beyond those of this process; node: whom it serves.

    awaits_signals: it is started with the signals that stop a job held back, and lets them come in once it listens to them.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    node: str = "localhost"
    awaits_signals: bool = False

    def __str__(self) -> str:
        """As one would type it into a shell."""
        assignments = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*assignments, shlex.join(self.argv)])


class Launcher(Protocol):
    """Starts jobs in one particular way."""

    def check(self, job: Job) -> None:
        """Raise LaunchError when the job cannot be started like this: a program is missing, or the hosts do not suit."""
        ...

    def commands(self, job: Job) -> list[Command]:
        """The programs to start here, all at the same time. Pure: touches neither files nor the network."""
        ...
