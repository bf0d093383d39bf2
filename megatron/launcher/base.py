"""What a launcher is: a pure function from a job to the commands that start an agent on each of its machines.

One agent runs on a machine and starts the ranks there. It connects to the head, which runs in deepy.py, and learns from it all the rest:
what to run, how many ranks, their environment. So the command line of an agent is short, whatever the job. A new launcher is one file
with a class of this protocol in `launchers/`, and one line in `megatron/components.py`.
"""

from __future__ import annotations

import shlex
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from megatron.environment import DEFAULT_MASTER_PORT
from megatron.launcher.addresses import LOOPBACK

DEFAULT_GRACE_SECONDS = 120.0
DEFAULT_NODE_TIMEOUT = 20.0


@dataclass(frozen=True)
class Host:
    """One machine and the devices of it that are used; on a machine without accelerators a slot is a CPU process."""

    name: str
    slots: tuple[int, ...]


def numbered_name(number: int) -> str:
    """The name of a machine of which the job only knows the number."""
    return f"node{number}"


@dataclass(frozen=True)
class HeadPlace:
    """Where the agents of a job find its head: addresses of deepy.py's machine, tried in this order, and a port; 0 before it is known.

    token: a word that only processes of this job know. It reaches the agents by their environment (`TOKEN_VARIABLE`).
    """

    addresses: tuple[str, ...] = (LOOPBACK,)
    port: int = 0
    token: str = ""

    def __str__(self) -> str:
        """As the agent's option --head takes it; PORT stands for one that is chosen when the job starts."""
        return ",".join(f"{address}:{self.port or 'PORT'}" for address in self.addresses)


@dataclass(frozen=True)
class Job:
    """One run of a script, on every slot of every host.

    environment: variables to set for every rank; directory: where the script runs, on every machine; master_addr: of the machine of rank 0,
    None when the head finds it out; master_port, port_is_fixed: where the ranks meet, and whether no other port will do when it is taken; grace_seconds: how long ranks may take to save and exit after a signal; max_restarts: how often ranks are
    started again after a crash; node_timeout: seconds without a word from a machine after which it is lost; log_dir: where each rank's output
    goes, None for the console; saves: whether the script saves what it does, so that nothing is lost when it is stopped; interactive: whether it
    talks with a person, who means the script with Ctrl-C and not the job: the ranks get SIGINT as it is.
    """

    script: str
    arguments: tuple[str, ...]
    hosts: tuple[Host, ...]
    directory: str = "."
    head: HeadPlace = HeadPlace()
    master_addr: str | None = None
    master_port: int = DEFAULT_MASTER_PORT
    port_is_fixed: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    grace_seconds: float = DEFAULT_GRACE_SECONDS
    max_restarts: int = 0
    node_timeout: float = DEFAULT_NODE_TIMEOUT
    log_dir: str | None = None
    saves: bool = False
    interactive: bool = False

    @property
    def world_size(self) -> int:
        return sum(len(host.slots) for host in self.hosts)

    @property
    def silence(self) -> float:
        """Seconds without a word after which the other side is lost. Between processes of one machine there is no network to lose: who is silent there
        was stopped (Ctrl-Z), and goes on later; whoever has ended is heard of at once.
        """
        apart = len(self.hosts) > 1 or self.head.addresses != (LOOPBACK,)
        return self.node_timeout if apart else float("inf")


@dataclass(frozen=True)
class Command:
    """One program to start on this machine. environment: variables it gets beyond those of this process; without: those it does not get.

    awaits_signals: it is started with the signals that stop a job held back, and lets them come in once it listens to them;
    interactive: it keeps our standard input; end_signal: what makes it end the processes it has started elsewhere, and itself;
    complaint: a pattern for the line of its error output that tells which `host` it could not start an agent on, because it goes on with the others;
    reports: it tells a scheduler about its end, so it is asked to end even when machines are lost. Others would only complain then, and are killed.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    awaits_signals: bool = False
    interactive: bool = False
    end_signal: signal.Signals = signal.SIGTERM
    complaint: str | None = None
    reports: bool = False

    def __str__(self) -> str:
        """As one would type it into a shell."""
        assignments = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        unset = ["env", *(word for name in self.without for word in ("-u", name))] if self.without else []
        return " ".join([*unset, *assignments, shlex.join(self.argv)])


class Launcher(Protocol):
    """Starts the agents of jobs in one particular way. It is built from the launcher keys of the config (`RunnerArgs`).

    needs_ssh: whether the other hosts must let this user in by ssh; deepy.py tries that first (`no_ssh_check` skips it). forwards:
    whether the ranks need variables of our environment, because they would not inherit it (`forward_environment`). holds_head: whether
    this deepy.py is the one that the agents connect to; where another one is, its agent is all that it starts.
    """

    needs_ssh: bool
    forwards: bool
    holds_head: bool

    def head_place(self, hosts: Sequence[Host]) -> HeadPlace:
        """Where the agents on `hosts` will look for the head; its port is 0 when any will do."""
        ...

    def check(self, job: Job) -> None:
        """Raise LaunchError when the job cannot be started like this: a program is missing, or the hosts do not suit."""
        ...

    def commands(self, job: Job) -> list[Command]:
        """The programs to start here, all at the same time, for one agent on each host. Pure: touches neither files nor the network."""
        ...
