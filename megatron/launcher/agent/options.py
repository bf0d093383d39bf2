"""The command line of the agent (`python -m megatron.launcher.agent`): written by the launchers, read by the agent.

Both ends of the line are here so that they cannot disagree. It says where the head is and who this agent is; the head tells the rest.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron.launcher.base import DEFAULT_NODE_TIMEOUT, HeadPlace, Job

REPOSITORY = Path(__file__).resolve().parents[3]

TOKEN_VARIABLE = "NEOX_JOB_TOKEN"
"""Environment variable with the word that proves to the head that an agent belongs to its job."""


@dataclass(frozen=True)
class AgentOptions:
    """Where the head is, and which machine of the job this is.

    One of three says which: node, its name in the job; node_from, a variable of the launcher that holds that name; number_from, a variable
    that holds its number among the hosts of the job. conclude: say why the job ended and exit with its status, because on this machine
    nobody else does. ends_parent: when the head is lost, end the process that has started the agent as well: a daemon of the launcher,
    which would go on waiting for its own head.
    """

    addresses: tuple[str, ...]
    port: int
    node: str | None = None
    node_from: str | None = None
    number_from: str | None = None
    node_timeout: float = DEFAULT_NODE_TIMEOUT
    conclude: bool = False
    ends_parent: bool = False


def agent_argv(
    job: Job,
    *,
    node: str | None = None,
    node_from: str | None = None,
    number_from: str | None = None,
    conclude: bool = False,
    ends_parent: bool = False,
) -> tuple[str, ...]:
    """The words that run the agent of one machine of `job` on it. node, node_from, number_from (one of them), conclude, ends_parent: as in `AgentOptions`."""
    given = {"--node": node, "--node-from": node_from, "--number-from": number_from}
    who = [word for option, value in given.items() if value is not None for word in (option, value)]
    assert len(who) == 2, "an agent is told in exactly one way which machine it is on"
    flags = [f"--{name}" for name, given in (("conclude", conclude), ("ends-parent", ends_parent)) if given]
    timeout = ("--node-timeout", f"{job.silence:g}")
    words = (sys.executable, "-m", "megatron.launcher.agent", "--head", str(job.head))
    return (*words, *who, *timeout, *flags)


def agent_environment(job: Job) -> dict[str, str]:
    """The variables without which the agent of `job` cannot start: where the package is, and the token of the job."""
    return {"PYTHONPATH": str(REPOSITORY)} | ({TOKEN_VARIABLE: job.head.token} if job.head.token else {})


def parse_agent_options(argv: Sequence[str] | None = None) -> AgentOptions:
    """The options on a command line (default: this process's)."""
    parser = argparse.ArgumentParser(
        "python -m megatron.launcher.agent", description="Start and watch the ranks of one machine."
    )
    parser.add_argument("--head", required=True, help="where deepy.py listens: ADDRESS:PORT,ADDRESS:PORT,...")
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--node", help="name of this machine in the job")
    who.add_argument("--node-from", metavar="VARIABLE", help="environment variable that holds it")
    who.add_argument(
        "--number-from", metavar="VARIABLE", help="environment variable with the number of this machine in the job"
    )
    parser.add_argument(
        "--node-timeout",
        type=float,
        default=DEFAULT_NODE_TIMEOUT,
        help="seconds of silence after which the head is lost",
    )
    parser.add_argument("--conclude", action="store_true", help="print why the job ended and exit with its status")
    parser.add_argument(
        "--ends-parent", action="store_true", help="end what has started the agent when the head is lost"
    )
    values = vars(parser.parse_args(argv))
    head = read_head(values.pop("head"))
    return AgentOptions(addresses=head.addresses, port=head.port, **values)


def read_head(text: str) -> HeadPlace:
    """What `str` of a HeadPlace wrote, without its token."""
    places = [part.rpartition(":") for part in text.split(",")]
    return HeadPlace(tuple(address for address, _, _ in places), int(places[0][2]))
