"""A script whose ranks write a file and wait for the end: for what goes wrong around a run, without the seconds torch takes to load."""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType

from megatron.launcher.worker import run_worker


def main() -> None:
    """Say that this rank has started; then wait, and save when asked to stop."""
    for number in (signal.SIGTERM, signal.SIGUSR1):  # a scheduler signals every process, the agent only knows the first
        signal.signal(number, save)
    write("started")
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
        return
    time.sleep(120)


def save(number: int, frame: FrameType | None) -> None:
    """What a rank does when it is asked to stop."""
    write("saved")
    sys.exit(75)


def write(name: str) -> None:
    """Leave a file that tells this rank and its host."""
    path = f"{name}.{os.environ['RANK']}"
    with open(f"{path}.partial", "w") as file:
        file.write(os.uname().nodename)
    os.replace(f"{path}.partial", path)


run_worker(main)
