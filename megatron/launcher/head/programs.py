"""The programs that start the agents, as children of deepy.py: pdsh, mpirun, srun, or the agent itself."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import threading
from collections.abc import Sequence

from megatron.launcher.base import Command
from megatron.launcher.children import Orphans, end_children, send_signal, start_child
from megatron.launcher.process import STOPS, with_paths

PIECE = 1 << 16
FAREWELL_SECONDS = 10.0
"""Seconds for the programs to end by themselves once all agents have left."""


class Programs:
    """The commands of a launcher, started together."""

    def __init__(self, commands: Sequence[Command]) -> None:
        self._commands = tuple(commands)
        self._children: list[subprocess.Popen[bytes]] = []
        self._orphans = Orphans()
        self._complaints: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()

    def start(self) -> None:
        """Start them all; they end when deepy.py dies."""
        if not all(command.awaits_signals for command in self._commands):
            self._orphans.adopt()
        for command in self._commands:
            self._children.append(
                start_child(
                    command.argv,
                    _environment(command),
                    death_signal=command.end_signal,
                    stdin=None if command.interactive else subprocess.DEVNULL,
                    outputs=(None, subprocess.PIPE if command.complaint else None),
                    held_back=STOPS if command.awaits_signals else (),
                )
            )
            if command.complaint:
                threading.Thread(target=self._listen, args=(self._children[-1], command.complaint), daemon=True).start()

    def complaints(self) -> list[tuple[str, str]]:
        """Hosts on which a program has said that it could not start an agent, with its line; each is told once."""
        told = []
        with contextlib.suppress(queue.Empty):
            while True:
                told.append(self._complaints.get_nowait())
        return told

    def _listen(self, child: subprocess.Popen[bytes], pattern: str) -> None:
        """Pass the error output of a program on, at once, and look for complaints in it."""
        assert child.stderr is not None
        rest = b""
        while piece := os.read(child.stderr.fileno(), PIECE):
            with contextlib.suppress(OSError):
                os.write(2, piece)
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if found := re.fullmatch(pattern, line.decode(errors="replace").strip()):
                    self._complaints.put((found["host"], found[0]))

    def running(self) -> list[subprocess.Popen[bytes]]:
        """Those that have not ended."""
        return [child for child in self._children if child.poll() is None]

    def all_ended(self) -> bool:
        """Whether none runs any more."""
        return not self.running()

    def first_end(self) -> tuple[str, int] | None:
        """Name and exit code (negative for a signal) of a program that has ended, one that failed before others; None when all run."""
        ended = [
            (_name(command), child.returncode)
            for command, child in zip(self._commands, self._children, strict=True)
            if child.poll() is not None
        ]
        return next((each for each in ended if each[1] != 0), ended[0] if ended else None)

    def end(self, *, patience: float, lost: bool = False) -> None:
        """End those that still run, each in its own way, and by force after `patience` seconds. lost: machines are, so not all can be ended."""
        for command, child in zip(self._commands, self._children, strict=True):
            if child.poll() is None and lost and not command.reports:
                send_signal(child, signal.SIGKILL)
            elif child.poll() is None and command.end_signal is not signal.SIGTERM:
                send_signal(child, command.end_signal)
        end_children(self.running(), patience=patience)
        self._orphans.end()  # an ssh to a machine that is gone ends by itself only after minutes


def _name(command: Command) -> str:
    return "the agent" if command.awaits_signals else os.path.basename(command.argv[0])


def _environment(command: Command) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if name not in command.without}
    return with_paths(ours, command.environment)
