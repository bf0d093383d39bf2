"""Who saves into a directory, as a file there says."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from megatron.checkpointing.files import host_name


@dataclass(frozen=True)
class Owner:
    """A process that saves. token: tells it from one that had the same number on the same host."""

    host: str
    pid: int
    since: str
    token: str

    @classmethod
    def this_process(cls) -> Owner:
        """The one that asks, as from now on."""
        return cls(host_name(), os.getpid(), datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"), secrets.token_hex(8))

    @classmethod
    def read(cls, content: bytes) -> Owner | None:
        """What a file says; None when it is none of ours."""
        try:
            said = json.loads(content)
            return cls(str(said["host"]), int(said["pid"]), str(said["since"]), str(said["token"]))
        except (ValueError, KeyError, TypeError):
            return None

    def content(self) -> bytes:
        """For a file."""
        return (json.dumps(asdict(self)) + "\n").encode()

    def __str__(self) -> str:
        return f"process {self.pid} on host {self.host}, since {self.since}"
