"""The gate of the head: who connects has to know the token of the job and be on one of its machines, and comes in once."""

from __future__ import annotations

import contextlib
import hmac
import socket
from collections.abc import Iterable, Sequence

from megatron.launcher.connection import Connection, Message
from megatron.launcher.head.nodes import Node, node_of

WRONG_TOKEN = (
    "error: this agent does not belong to the job whose head is here: start all machines of a job with the same config files and keys "
    "(and the same NEOX_JOB_TOKEN, where that is set)\n"
)


class Gate:
    """Lets the agents of `nodes` in. token: of the job.

    trouble: why the job cannot go on, when an agent is on a machine that is none of the job's, or on one that has an agent already;
    turned_away: the address of somebody who did not know the token, the last one.
    """

    def __init__(self, listener: socket.socket, nodes: Sequence[Node], *, token: str) -> None:
        self.trouble: str | None = None
        self.turned_away: str | None = None
        self._listener = listener
        self._nodes = nodes
        self._token = token
        self._strangers: list[Connection] = []

    def let_in(self) -> Connection | None:
        """The connection of somebody new, who has yet to say who he is."""
        with contextlib.suppress(OSError):
            link, _ = self._listener.accept()
            self._strangers.append(Connection(link))
            return self._strangers[-1]
        return None

    def knows(self, link: Connection) -> bool:
        """Whether he has said who he is."""
        return link not in self._strangers

    def greet(self, link: Connection, messages: Iterable[Message]) -> Node | None:
        """What a stranger said: the machine he is the agent of. Whoever is no agent of the job is sent away: `link` is closed then."""
        for message in messages:
            if message["kind"] != "hello" or not self._is_ours(message.get("token")):
                self.turned_away = link.other_address
                link.send("exit", status=1, text=WRONG_TOKEN)
            elif (node := node_of(self._nodes, message)) is None or node.link is not None:
                self.trouble = self.trouble or _unexpected(self._nodes, node, message)
            else:
                node.link, node.hello, link.trusted = link, message, True
                self._strangers.remove(link)
                return node
            link.close()
            break
        if link.closed:
            self._strangers.remove(link)
        return None

    def _is_ours(self, token: object) -> bool:
        return hmac.compare_digest(str(token).encode(errors="replace"), self._token.encode(errors="replace"))

    def close(self) -> None:
        """Nobody comes in any more; whoever waits outside is told by the end of his connection."""
        self._listener.close()
        for link in self._strangers:
            link.close()


def _unexpected(nodes: Iterable[Node], node: Node | None, hello: Message) -> str:
    calls = hello.get("node") if hello.get("number") is None else f"number {hello['number']}"
    names = ", ".join(each.host.name for each in nodes)
    if node is None:
        return f"an agent on {hello.get('machine')} calls its machine {calls}, and the hosts of the job are {names}: use these names"
    other = (node.hello or {}).get("machine")
    return f"two agents (on {hello.get('machine')} and {other}) call their machine {calls}: start one on each, with its own name or number (NODE_RANK for torchrun)"
