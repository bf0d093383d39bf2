"""The connection between the head of a job and an agent: JSON objects, one a line, and a beat a second in both directions.

A beat is an empty line. A program that lives beats even while it waits for something, because a thread of its own does it; so silence means
that the machine or the network between is gone, which TCP alone would tell only after minutes.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterable
from typing import Any

BEAT_SECONDS = 1.0
SEND_SECONDS = 5.0
"""Seconds for the other side to take what we say before it counts as gone."""
PIECE = 1 << 16
LONGEST_GREETING = 1 << 16
"""Bytes that are kept of somebody who has not said yet who he is."""

Message = dict[str, Any]


class Connection:
    """One end of it. closed: the other side has gone, or cannot be written to any more; heard_at: when it was last heard (monotonic)."""

    def __init__(self, link: socket.socket) -> None:
        link.settimeout(SEND_SECONDS)  # what is read was announced by a selector, so this is about sending
        with contextlib.suppress(OSError):  # not every kind of socket has it
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.closed = False
        self.heard_at = time.monotonic()
        self.trusted = False
        self._link = link
        self._rest = b""
        self._sending = threading.Lock()

    def fileno(self) -> int:
        """For selectors."""
        return self._link.fileno()

    @property
    def own_address(self) -> str:
        """The address of this machine that the other side sees."""
        return str(self._link.getsockname()[0])

    @property
    def other_address(self) -> str:
        """The address of the other side."""
        with contextlib.suppress(OSError):
            return str(self._link.getpeername()[0])
        return "an unknown address"

    @property
    def silence(self) -> float:
        """Seconds since the other side was last heard."""
        return time.monotonic() - self.heard_at

    def send(self, kind: str, **content: Any) -> None:
        """Say something; a connection that is gone swallows it and is closed from then on."""
        self._write(json.dumps({"kind": kind, **content}, separators=(",", ":")).encode() + b"\n")

    def beat(self) -> None:
        """Give a sign of life."""
        self._write(b"\n")

    def read(self) -> list[Message]:
        """The messages that have come in, once a selector has announced something."""
        try:
            piece = self._link.recv(PIECE)
        except (TimeoutError, BlockingIOError, InterruptedError):
            return []
        except OSError:
            piece = b""
        if not piece:
            self.closed = True
            return []
        self.heard_at = time.monotonic()
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if not self.trusted and len(self._rest) > LONGEST_GREETING:
            self.closed = True
            return []
        return [message for line in lines if line and (message := self._parse(line)) is not None]

    def close(self) -> None:
        """Hang up; what was said is still delivered."""
        self.closed = True
        with contextlib.suppress(OSError):
            self._link.close()

    def _parse(self, line: bytes) -> Message | None:
        """A line of the other side; one that is none of ours ends the connection."""
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):  # brackets within brackets
            message = None
        if not isinstance(message, dict) or not isinstance(message.get("kind"), str):
            self.closed = True
            return None
        return message

    def _write(self, content: bytes) -> None:
        with self._sending:
            if self.closed:
                return
            try:
                self._link.sendall(content)
            except OSError:
                self.closed = True


class Beats:
    """Beats on connections, from `begin` to `end`, in a thread of its own."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._connections: list[Connection] = []

    def begin(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name="beats", daemon=True).start()

    def add(self, connection: Connection) -> None:
        """Beat on this one, too."""
        self._connections.append(connection)

    def end(self) -> None:
        """No beat comes any more, after the one that may be on its way."""
        self._over.set()

    def _run(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            for connection in list(self._connections):
                connection.beat()


def connect(addresses: Iterable[str], port: int, *, seconds: float) -> Connection | None:
    """A connection to the first address that answers; None when none does. seconds: patience for each of them."""
    for address in addresses:
        with contextlib.suppress(OSError):
            return Connection(socket.create_connection((address, port), timeout=seconds))
    return None
