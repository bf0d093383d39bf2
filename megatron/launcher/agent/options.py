"""The command line of the agent (`python -m megatron.launcher.agent`): written by the launchers, read by the agent.

One agent runs on each machine and starts the ranks there. Both ends of the line are here so that they cannot disagree.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron.environment import DEFAULT_MASTER_PORT
from megatron.launcher.base import DEFAULT_GRACE_SECONDS, Command, Job

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class AgentOptions:
    """What one agent does: which machine of how many it is, and what it runs there how many times.

    devices: the accelerators to show to the ranks; empty shows what there is. max_restarts, saves: as in `Job`.
    """

    script: str
    arguments: tuple[str, ...] = ()
    ranks: int = 1
    devices: tuple[int, ...] = ()
    nodes: int = 1
    node_rank: int = 0
    master_addr: str = "127.0.0.1"
    master_port: int = DEFAULT_MASTER_PORT
    grace_seconds: float = DEFAULT_GRACE_SECONDS
    max_restarts: int = 0
    saves: bool = False

    def argv(self) -> tuple[str, ...]:
        """The arguments that `parse_agent_options` reads back to an equal object."""
        devices = ("--devices", ",".join(map(str, self.devices))) if self.devices else ()
        nodes = ("--nodes", str(self.nodes), "--node-rank", str(self.node_rank)) if self.nodes > 1 else ()
        master = ("--master-addr", self.master_addr, "--master-port", str(self.master_port))
        grace = ("--grace-seconds", f"{self.grace_seconds:g}")
        restarts = ("--max-restarts", str(self.max_restarts)) if self.max_restarts else ()
        saves = ("--saves",) if self.saves else ()
        options = (*devices, *nodes, *master, *grace, *restarts, *saves)
        return ("--ranks", str(self.ranks), *options, self.script, *self.arguments)


def parse_agent_options(argv: Sequence[str] | None = None) -> AgentOptions:
    """The options on a command line (default: this process's)."""
    parser = argparse.ArgumentParser(
        "python -m megatron.launcher.agent", description="Start and watch the ranks of one machine."
    )
    parser.add_argument("--ranks", type=int, default=1, help="processes to start on this machine")
    parser.add_argument("--devices", type=_integers, default=(), help="accelerators to show to them, e.g. 0,2")
    parser.add_argument("--nodes", type=int, default=1, help="machines of the job")
    parser.add_argument(
        "--node-rank", type=int, default=0, help="number of this machine; ranks are numbered in this order"
    )
    parser.add_argument("--master-addr", default="127.0.0.1", help="machine with node rank 0")
    parser.add_argument("--master-port", type=int, default=DEFAULT_MASTER_PORT)
    parser.add_argument(
        "--grace-seconds", type=float, default=DEFAULT_GRACE_SECONDS, help="time to save and exit after a signal"
    )
    parser.add_argument(
        "--max-restarts", type=int, default=0, help="how often to start the ranks again after a crash; on one machine"
    )
    parser.add_argument(
        "--saves", action="store_true", help="the script saves: nothing is lost when it is stopped before it has begun"
    )
    parser.add_argument("script")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    values = vars(parser.parse_args(argv))
    return AgentOptions(**values | {"arguments": tuple(values["arguments"])})


def agent_command(
    job: Job, node_rank: int = 0, *, devices: tuple[int, ...] = (), environment: Mapping[str, str] | None = None
) -> Command:
    """The command that runs the agent of one host of a job, on that host."""
    host = job.hosts[node_rank]
    options = AgentOptions(
        script=job.script,
        arguments=job.arguments,
        ranks=len(host.slots),
        devices=devices,
        nodes=len(job.hosts),
        node_rank=node_rank,
        master_addr=job.master_addr,
        master_port=job.master_port,
        grace_seconds=job.grace_seconds,
        max_restarts=job.max_restarts,
        saves=job.saves,
    )
    argv = (sys.executable, "-m", "megatron.launcher.agent", *options.argv())
    return Command(argv, {**(environment or {}), **job.environment}, node=host.name, awaits_signals=True)


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))
