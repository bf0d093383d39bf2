"""Runs the commands of a launcher: passes signals on, ends all when one fails, leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType

from megatron.launcher.base import Command
from megatron.launcher.children import end_children, send_signal, start_child
from megatron.stopping import POLITE_SIGNALS, STOPPED, status_of_signal

POLL_SECONDS = 0.05
END_PATIENCE = 15.0
"""Seconds for the other commands to end after one failed, and for all beyond the grace period of their ranks."""

STOPS = (*POLITE_SIGNALS, signal.SIGHUP)
FORWARDED = (*STOPS, signal.SIGUSR2)


def run_commands(commands: Sequence[Command], *, grace_seconds: float) -> int:
    """Run all commands at once to their end; returns 0, or the exit status of the one that failed first (128 + n for signal n).

    A command that saved and stopped has not failed: when all have ended so, or well, its status is returned.

    Signals to this process are passed on to every command; they get `grace_seconds` and a little more to end after SIGTERM, SIGINT
    or SIGUSR1, and are killed then.
    """
    group = _Group(grace_seconds)
    with _signals_to(group):
        try:
            for command in commands:
                group.start(command)
            return group.wait()
        finally:
            end_children(group.running(), patience=END_PATIENCE)


class _Group:
    """Commands running at the same time."""

    def __init__(self, grace_seconds: float) -> None:
        self._children: list[subprocess.Popen[bytes]] = []
        self._grace_seconds = grace_seconds
        self._deadline = float("inf")
        self._stop: int | None = None

    def start(self, command: Command) -> None:
        """Start a command, unless a signal has asked to stop."""
        if self._stop is not None:
            return
        environment = with_paths(os.environ, command.environment)
        held_back = STOPS if command.awaits_signals else ()
        self._children.append(start_child(command.argv, environment, death_signal=signal.SIGTERM, held_back=held_back))
        if self._stop is not None:  # it came before the child could be told of it
            send_signal(self._children[-1], signal.SIGTERM)

    def running(self) -> list[subprocess.Popen[bytes]]:
        return [child for child in self._children if child.poll() is None]

    def wait(self) -> int:
        """Until all have ended or one has failed; the exit status."""
        if not self._children and self._stop is not None:
            return status_of_signal(self._stop)
        while time.monotonic() < self._deadline:
            codes = [child.poll() for child in self._children]
            failed = next((code for code in codes if code not in (None, 0, STOPPED)), None)
            if failed is not None:
                if failed < 0 and self._stop is None:  # else it has said itself why it ended
                    name = signal.Signals(-failed).name
                    sys.stderr.write(
                        f"error: the agent was killed by signal {-failed} ({name}), and its ranks with it\n"
                    )
                return status_of_signal(-failed) if failed < 0 else failed
            if None not in codes:
                return STOPPED if STOPPED in codes else 0
            time.sleep(POLL_SECONDS)
        return status_of_signal(signal.SIGKILL)

    def on_signal(self, number: int, _: FrameType | None) -> None:
        if number in STOPS and self._stop is None:
            self._stop = number
            self._deadline = time.monotonic() + self._grace_seconds + END_PATIENCE
        for child in self.running():
            send_signal(child, number)


def with_paths(environment: Mapping[str, str], added: Mapping[str, str]) -> dict[str, str]:
    """`environment` with `added`; a PYTHONPATH is put before the one that is there."""
    merged = {**environment, **added}
    if "PYTHONPATH" in added and environment.get("PYTHONPATH"):
        merged["PYTHONPATH"] = os.pathsep.join([added["PYTHONPATH"], environment["PYTHONPATH"]])
    return merged


@contextlib.contextmanager
def _signals_to(group: _Group) -> Iterator[None]:
    """Within it, signals go to the group; a SIGHUP that `nohup` ignores stays ignored."""
    numbers = [
        number for number in FORWARDED if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
    ]
    previous = {number: signal.signal(number, group.on_signal) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
