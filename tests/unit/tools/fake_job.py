"""Processes that look like a job's, in a directory of their own: deepy.py, an agent, and a rank that the agent has started."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import REPOSITORY

TOOLS = REPOSITORY / "tools" / "bash"

_FRONT = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
open("front", "w").close()
while True:
    signal.pause()
"""

_RANK = """
import signal, sys
def save(*_):
    open("saved", "w").close()
    sys.exit(75)
signal.signal(signal.SIGTERM, signal.SIG_IGN if "deaf" in sys.argv else save)
open("rank", "w").close()
while True:
    signal.pause()
"""

_AGENT = """
import os, signal, subprocess, sys
rank = subprocess.Popen([sys.executable, "-S", "rank.py", *sys.argv[1:]], env={**os.environ, "NEOX_JOB": "1", "RANK": "3"})
signal.signal(signal.SIGTERM, lambda *_: rank.terminate())
sys.exit(rank.wait())
"""


class FakeJob:
    """A job in `directory`. deaf: its rank does not answer SIGTERM."""

    def __init__(self, directory: Path, *, deaf: bool = False) -> None:
        self.directory = directory
        package = directory / "megatron" / "launcher"
        package.mkdir(parents=True)
        (package / "agent.py").write_text(_AGENT)
        (directory / "rank.py").write_text(_RANK)
        (directory / "deepy.py").write_text(_FRONT)
        words = ["deaf"] if deaf else []
        self._processes = [self.start("deepy.py", "train.py"), self.start("-m", "megatron.launcher.agent", *words)]
        wait_for(lambda: (directory / "front").exists() and (directory / "rank").exists())

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """A Python process in the directory of the job."""
        return subprocess.Popen([sys.executable, "-S", *words], cwd=self.directory, start_new_session=True)

    @property
    def saved(self) -> bool:
        return (self.directory / "saved").exists()

    def statuses(self) -> list[int | None]:
        """Exit codes of deepy.py and the agent, None while they run."""
        return [process.poll() for process in self._processes]

    def end(self) -> None:
        """Kill what is left."""
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, 9)
            process.wait()


def wait_for(condition: object, *, seconds: float = 10.0) -> None:
    """Until `condition()` holds."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def run_tool(name: str, *words: object, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a script of tools/bash. path: a folder of programs that are found before others."""
    environment = {key: value for key, value in os.environ.items() if key != "DLTS_HOSTFILE"}
    if path is not None:
        environment["PATH"] = f"{path}:{environment['PATH']}"
    command = [str(TOOLS / name), *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def fake_ssh(directory: Path) -> Path:
    """A folder with an `ssh` that runs commands on this machine, whatever the host; hosts named gone... are unreachable."""
    program = directory / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(
        """#!/usr/bin/env bash
while [[ $1 == -* ]]; do
    shift "$([[ $1 == -o ]] && echo 2 || echo 1)"
done
host=$1
shift
if [[ $host == gone* ]]; then
    echo "ssh: connect to host $host port 22: No route to host" >&2
    exit 255
fi
HOST=$host exec bash -c "$*"
"""
    )
    program.chmod(0o755)
    return program.parent
