"""A machine whose deepy.py does not hold the head (`torchrun` on all but the first): it runs its agent, which tells how the job ended."""

from __future__ import annotations

import subprocess
import sys
import time

from megatron.launcher.base import Job, Launcher
from megatron.launcher.children import send_signal
from megatron.launcher.failure import killed_by
from megatron.launcher.head.programs import Programs
from megatron.launcher.process import POLL_SECONDS, STOPS, signals_to
from megatron.stopping import status_of_signal

END_SECONDS = 30.0
"""Seconds for the agent beyond the grace period of its ranks."""


def follow(job: Job, launcher: Launcher) -> int:
    """Run this machine's agent to its end; returns the exit status of the job."""
    programs = Programs(launcher.commands(job))
    deadline = float("inf")
    children: list[subprocess.Popen[bytes]] = []

    def on_signal(number: int) -> None:
        nonlocal deadline
        if number in STOPS:
            deadline = min(deadline, time.monotonic() + job.grace_seconds + END_SECONDS)
        for child in children:
            send_signal(child, number)

    with signals_to(on_signal):
        try:
            programs.start()
            children += programs.running()
            while programs.running() and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
        finally:
            programs.end(patience=END_SECONDS)
    _, code = programs.first_end() or ("", 1)
    if code < 0:
        sys.stderr.write(f"error: the agent {killed_by(-code)}, and its ranks with it\n")
        return status_of_signal(-code)
    return code
