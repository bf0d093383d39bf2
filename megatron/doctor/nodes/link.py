"""A connection between the doctor and a surveyor: JSON objects, one a line, question and answer."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any

PATIENCE = 90.0
"""Seconds for an answer: nvidia-smi alone may take half a minute on a machine with a device that has died."""

DESK_VARIABLE = "NEOX_DOCTOR_DESK"
"""Environment variable of a surveyor: where the doctor listens, `ADDRESS,ADDRESS:PORT`."""
TOKEN_VARIABLE = "NEOX_DOCTOR_TOKEN"
"""Environment variable of a surveyor: the word that proves it belongs to this examination."""

LONGEST = 1 << 24
"""Bytes of an object."""

Message = dict[str, Any]


class Link:
    """One end of it. Every method raises OSError when the other side is gone or silent."""

    def __init__(self, connection: socket.socket, *, patience: float = PATIENCE) -> None:
        connection.settimeout(patience)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self._lines = connection.makefile("rb")

    @property
    def addresses(self) -> tuple[str, str]:
        """(ours, theirs)."""
        return str(self._connection.getsockname()[0]), str(self._connection.getpeername()[0])

    def say(self, message: Message) -> None:
        """Send an object."""
        self._connection.sendall(json.dumps(message).encode() + b"\n")

    def hear(self) -> Message:
        """The next object."""
        line = self._lines.readline(LONGEST)
        if not line:
            raise ConnectionError("the other side has hung up")
        try:
            message = json.loads(line)
        except ValueError as error:
            raise ConnectionError(f"the other side speaks otherwise ({error})") from None
        if not isinstance(message, dict):
            raise ConnectionError("the other side speaks otherwise")
        return message

    def ask(self, question: str, **about: Any) -> Message:
        """A question, and the answer to it."""
        self.say({"question": question, **about})
        return self.hear()

    def close(self) -> None:
        """Hang up. Somebody who waits for an answer in another thread learns of it at once."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._lines.close()
        self._connection.close()
