"""The machines of a job as the head knows them: which agent has come from where, how long ago it was heard, and how its ranks ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from megatron.errors import LaunchError
from megatron.launcher.base import Host, numbered_name
from megatron.launcher.connection import Connection, Message
from megatron.launcher.failure import Failure


@dataclass
class Node:
    """One machine. number: among the hosts of the job; several: whether there are others.

    link: the connection to its agent, None before it has come; hello: what that said of itself; ended: what it said of the end of its ranks;
    running: whether they have been started and not ended; gone: why it is lost; gone_since: when it was heard last (monotonic).
    """

    host: Host
    number: int
    first_rank: int
    several: bool
    link: Connection | None = None
    hello: Message | None = None
    ended: Message | None = None
    running: bool = False
    gone: str | None = None
    gone_since: float = 0.0

    @property
    def ranks(self) -> str:
        """Its ranks in words."""
        last = self.first_rank + len(self.host.slots) - 1
        return f"rank {last}" if last == self.first_rank else f"ranks {self.first_rank} to {last}"

    @property
    def name(self) -> str:
        """As the user knows it: a host that only has a number in the job is called what its agent says it is called."""
        is_numbered = self.host.name == numbered_name(self.number) and self.hello is not None
        return str(self.hello["machine"]) if is_numbered and self.hello else self.host.name

    @property
    def title(self) -> str:
        """Its name with its ranks."""
        return f"{self.name} ({self.ranks})"

    @property
    def address(self) -> str:
        """The address with which it reaches the head, and other machines probably reach it."""
        return str((self.hello or {}).get("address", ""))

    def said(self, name: str) -> Any:
        """A part of what the agent said of the end of its ranks."""
        return (self.ended or {}).get(name)

    def lose(self, why: str) -> None:
        """It does not count any more."""
        self.gone, self.running = why, False
        if self.link is not None:
            self.gone_since = self.link.heard_at

    def tell(self, kind: str, **content: Any) -> None:
        """Say something to its agent, if that is there."""
        if self.link is not None and self.gone is None:
            self.link.send(kind, **content)

    def failures(self, *, now: float) -> list[Failure]:
        """The ranks that ended badly here. now: our clock when the agent's message came (seconds since the epoch)."""
        later = now - float(self.said("now") or now)
        node = self.name if self.several else None
        return [Failure.from_message(content, node=node, later=later) for content in self.said("failures") or ()]


def nodes_of(hosts: Sequence[Host]) -> list[Node]:
    """The machines of a job, with ranks numbered in their order."""
    nodes: list[Node] = []
    first = 0
    for number, host in enumerate(hosts):
        nodes.append(Node(host, number, first, several=len(hosts) > 1))
        first += len(host.slots)
    return nodes


def node_of(nodes: Sequence[Node], hello: Message) -> Node | None:
    """The machine that an agent says it is on: by number, by name, or by a name without or with its domain; None when it is none of them."""
    number, name = hello.get("number"), str(hello.get("node") or "")
    if number is not None:
        return nodes[number] if 0 <= number < len(nodes) else None
    exact = [node for node in nodes if node.host.name == name]
    short = [node for node in nodes if _short(node.host.name) == _short(name)]
    return next(iter(exact or (short if len(short) == 1 else [])), None)


def check_devices(nodes: Sequence[Node]) -> None:
    """Raise LaunchError when a machine has fewer accelerators than slots, or only some machines have any."""
    counts = {node.host.name: int((node.hello or {}).get("devices", 0)) for node in nodes}
    if not any(counts.values()):
        return
    problems = list(_shortages(nodes, counts))
    if problems:
        raise LaunchError("; ".join(problems))


def _shortages(nodes: Sequence[Node], counts: dict[str, int]) -> Iterator[str]:
    for node in nodes:
        count, needed = counts[node.host.name], max(node.host.slots) + 1
        if count == 0:
            others = next(name for name, number in counts.items() if number)
            yield f"{node.title} shows no accelerator, while {others} does: look at its driver and CUDA_VISIBLE_DEVICES, or exclude it"
        elif needed > count:
            shown = f"{count} accelerator{'s' if count > 1 else ''}"
            yield f"{node.title} shows {shown}, but the job wants {needed} slots there: set slots={count} in the hostfile, or num_gpus={count}"


def _short(name: str) -> str:
    return name.partition(".")[0]
