"""Examines the machine it runs on, for the doctor that had it started by a launcher: connects to it, and answers its questions. No torch."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from megatron.doctor.facts.disks import look_at_folder
from megatron.doctor.facts.machine import gather_machine
from megatron.doctor.nodes.link import DESK_VARIABLE, PATIENCE, TOKEN_VARIABLE, Link, Message
from megatron.errors import LaunchError
from megatron.launcher.worker import run_worker

REACH_SECONDS = 5.0
"""Seconds for another machine to let us in. A firewall that drops packets answers never."""


def main() -> None:
    """Answer until the doctor says that it is enough. Raises LaunchError when it cannot be reached."""
    link = _connect(*_desk())
    link.say({"token": os.environ[TOKEN_VARIABLE], "rank": int(os.environ["RANK"])})
    surveyor = Surveyor()
    with contextlib.suppress(OSError):  # the doctor has hung up: it knows why, and tells
        while (question := link.hear())["question"] != "leave":
            link.say(surveyor.answer(question))


class Surveyor:
    """Answers questions about its machine."""

    def __init__(self) -> None:
        self._listener: socket.socket | None = None
        self._answers: Mapping[str, Callable[[Message], Message]] = {
            "time": lambda _: {"time": time.time()},
            "machine": lambda _: asdict(gather_machine()),
            "folders": lambda question: {"folders": [asdict(look_at_folder(path)) for path in question["paths"]]},
            "read": lambda question: read(question["path"]),
            "meeting place": lambda _: meeting_place(os.environ),
            "listen": lambda _: self._listen(),
            "reach": lambda question: {
                "problems": {name: reach(host, port) for name, (host, port) in question["places"].items()}
            },
        }

    def answer(self, question: Message) -> Message:
        """What there is to say to one."""
        return self._answers[question["question"]](question)

    def _listen(self) -> Message:
        """A port that others may try until we leave; the system accepts for us."""
        self._listener = self._listener or socket.create_server(("", 0), backlog=1024)
        return {"port": self._listener.getsockname()[1]}


def read(path: str) -> Message:
    """The content of a small file, or why there is none."""
    try:
        return {"content": Path(path).read_text(), "problem": ""}
    except (OSError, UnicodeDecodeError) as error:
        return {"content": "", "problem": getattr(error, "strerror", None) or str(error)}


def meeting_place(variables: Mapping[str, str]) -> Message:
    """Whether the store of the job, where the ranks of a run meet, can be reached. One rank alone meets nobody."""
    host, port = variables["MASTER_ADDR"], int(variables["MASTER_PORT"])
    return {"port": port, "problem": reach(host, port) if int(variables["WORLD_SIZE"]) > 1 else ""}


def reach(host: str, port: int) -> str:
    """Why a port of a machine does not let us in; empty when it does."""
    try:
        socket.create_connection((host, port), timeout=REACH_SECONDS).close()
    except TimeoutError:
        return f"{host}:{port} did not answer within {REACH_SECONDS:.0f} s"
    except OSError as error:
        return f"{host}:{port}: {error.strerror or error}"
    return ""


def _desk() -> tuple[tuple[str, ...], int]:
    addresses, _, port = os.environ[DESK_VARIABLE].rpartition(":")
    return tuple(addresses.split(",")), int(port)


def _connect(addresses: tuple[str, ...], port: int) -> Link:
    problems: list[Any] = []
    for address in addresses:
        try:
            return Link(socket.create_connection((address, port), timeout=min(REACH_SECONDS, PATIENCE)))
        except OSError as error:
            problems.append(f"{address}:{port} ({error.strerror or error})")
    raise LaunchError(f"{socket.gethostname()} cannot reach the machine of deepy.py: tried {', '.join(problems)}")


if __name__ == "__main__":
    run_worker(main)
