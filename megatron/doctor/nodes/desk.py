"""Where the surveyors of a job report: it listens while the job runs, and asks them, all at the same time, what there is to know."""

from __future__ import annotations

import contextlib
import hmac
import secrets
import socket
import threading
import time
from collections.abc import Mapping, Sequence

from megatron.doctor.facts.node import NodeFacts
from megatron.doctor.nodes.conversation import Conversation
from megatron.doctor.nodes.link import DESK_VARIABLE, PATIENCE, TOKEN_VARIABLE, Link

TURN = 0.1
HELLO_SECONDS = 5.0
"""Seconds for whoever has connected to say who he is; others wait meanwhile."""
ARRIVAL_SECONDS = 60.0
"""Seconds for the others to report once the first one has."""


class Desk:
    """names: of the machines, in the order of their ranks; folders: where the run writes, by key; marks: for each of these a file there and
    what it holds. It is open within `with`, and closes the conversation at its end.
    """

    def __init__(self, names: Sequence[str], folders: Mapping[str, str], marks: Mapping[str, tuple[str, str]]) -> None:
        self.facts: dict[str, NodeFacts] = {}
        self._conversation = Conversation(names, folders, marks)
        self._names = tuple(names)
        self._token = secrets.token_hex(16)
        self._links: dict[str, Link] = {}
        self._came: dict[str, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="desk", daemon=True)

    def __enter__(self) -> Desk:
        self._listener = socket.create_server(("", 0), backlog=1024)
        self._listener.settimeout(TURN)
        self._opened = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=1.0)
        for link in list(self._links.values()):
            link.close()  # whoever waits for an answer, waits in vain
        self._thread.join()
        self._listener.close()

    @property
    def problems(self) -> Mapping[str, str]:
        """Why machines fell silent, by name."""
        return self._conversation.problems

    def environment(self, addresses: Sequence[str]) -> dict[str, str]:
        """What a surveyor needs to find us. addresses: of this machine."""
        port = self._listener.getsockname()[1]
        return {DESK_VARIABLE: f"{','.join(addresses)}:{port}", TOKEN_VARIABLE: self._token}

    def _run(self) -> None:
        try:
            self._gather()
            if self._links and not self._over.is_set():
                self.facts = self._conversation.hold(self._links, self._came)
        finally:
            for link in self._links.values():
                with contextlib.suppress(OSError):
                    link.say({"question": "leave"})

    def _gather(self) -> None:
        """Until all surveyors have come, or no more are to be expected."""
        deadline = float("inf")
        while len(self._links) < len(self._names) and not self._over.is_set() and time.monotonic() < deadline:
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            link = Link(connection, patience=HELLO_SECONDS)
            try:
                hello = link.hear()
            except OSError:
                link.close()
                continue
            rank, token = hello.get("rank"), str(hello.get("token", ""))
            known = hmac.compare_digest(token.encode(), self._token.encode())
            if not known or not isinstance(rank, int) or rank not in range(len(self._names)):
                link.close()
                continue
            connection.settimeout(PATIENCE)
            name = self._names[rank]
            self._links[name], self._came[name] = link, time.monotonic() - self._opened
            deadline = min(deadline, time.monotonic() + ARRIVAL_SECONDS)
