"""A job on the cluster: started as README says, watched from outside, and looked for until nothing of it is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.hosts import Hosts, Process
from tests.cluster.patience import wait_until
from tests.cluster.ssh import VARIABLES
from tests.conftest import REPOSITORY

UNSET = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "DLTS_HOSTFILE")
"""Variables of this process that must not reach a job."""
SCRIPTS = ("train.py", "wait.py")
SESSIONS = ("sshd:", "slurmstepd:")
"""What the daemons of a host that was cut off keep of a job until they hear from its other side again."""


@dataclass
class Front:
    """One shell that runs a block on a host. command: the `nsenter` outside; out, err: what the block wrote."""

    host: str
    command: subprocess.Popen[bytes]
    out: Path
    err: Path


@dataclass
class Launch:
    """A running job. directory: where it was started; begin: monotonic time of that; fronts: the shells it was started by."""

    hosts: Hosts
    directory: Path
    begin: float
    fronts: list[Front] = field(default_factory=list)

    def finish(self, seconds: float = 60) -> int:
        """Wait until every front has ended; returns the worst exit status, as a shell counts."""
        end = time.monotonic() + seconds
        codes = [front.command.wait(max(0.1, end - time.monotonic())) for front in self.fronts]
        return max(code if code >= 0 else 128 - code for code in codes)

    def running(self) -> bool:
        """Whether any front still runs."""
        return any(front.command.poll() is None for front in self.fronts)

    def wait_for(self, *files: str, seconds: float = 60) -> None:
        """Wait for files in the directory of the job; AssertionError with all that was said when it ends before."""
        paths = [self.directory / file for file in files]
        wait_until(
            lambda: all(path.exists() for path in paths) or not self.running(), seconds, what=f"{files}\n{self.said()}"
        )
        assert all(path.exists() for path in paths), self.said()

    def said(self) -> str:
        """All that the fronts have written."""
        return "\n".join(f.read_text(errors="replace") for front in self.fronts for f in (front.out, front.err))

    @property
    def errors(self) -> list[str]:
        """The lines that begin with "error" on the standard error of the first front, which knows of all hosts."""
        lines = self.fronts[0].err.read_text(errors="replace").splitlines()
        return [line for line in lines if line.startswith("error")]

    def rank(self, number: int) -> Process:
        """The process of a rank, on whatever host."""
        (found,) = [each for each in self.hosts.processes() if is_rank(each, number)]
        return found

    def deepy(self, host: str = "h1") -> Process:
        """The process of deepy.py on a host."""
        (found,) = [each for each in self.hosts[host].processes() if is_deepy(each)]
        return found

    def seconds_until_nothing_is_left(self, patience: float = 20, *, but: tuple[str, ...] = ()) -> float:
        """Wait until no host runs anything of the job; AssertionError with what still runs. but: how programs begin that may."""

        def left() -> list[Process]:
            return [process for process in self.hosts.processes() if not process.words[0].startswith(but or "\0")]

        try:
            return wait_until(lambda: not left(), patience)
        except AssertionError:
            lines = [f"{each.host}: {' '.join(each.words)}" for each in left()]
            raise AssertionError("\n".join(["left running:", *lines])) from None

    def kill(self) -> None:
        """End what still runs of the job, on every host."""
        for process in self.hosts.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        for front in self.fronts:
            front.command.kill()
            front.command.wait()


def is_rank(process: Process, number: int) -> bool:
    """Whether a process is the one that runs the script as rank `number`, and none that it has started."""
    environment = environment_of(process.pid)
    return environment.get("RANK") == str(number) and any(word.endswith(SCRIPTS) for word in process.words)


def is_deepy(process: Process) -> bool:
    """Whether a process is Python running deepy.py."""
    return len(process.words) > 1 and "python" in process.words[0] and process.words[1].endswith("deepy.py")


def environment_of(pid: int) -> dict[str, str]:
    """The variables a process was started with; none once it has ended."""
    try:
        pairs = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return {}
    return dict(pair.partition("=")[::2] for pair in pairs if "=" in pair)


@contextlib.contextmanager
def launched(
    hosts: Hosts,
    directory: Path,
    block: str,
    *,
    fronts: Mapping[str, Mapping[str, str]] | None = None,
    path: Path | None = None,
) -> Iterator[Launch]:
    """Run a block of README in `directory`; all that it started is gone afterwards.

    fronts: the hosts it is typed on and variables set there, default h1 and none; path: a directory of programs that come before all others.
    """
    for name in ("deepy.py", "train.py", "megatron", "configs"):
        link = directory / name
        if not link.exists():
            link.symlink_to(REPOSITORY / name)
    places = [str(path)] if path else []
    environment = {name: value for name, value in os.environ.items() if name not in UNSET}
    environment |= VARIABLES
    environment["PATH"] = os.pathsep.join([*places, str(Path(sys.executable).parent), os.environ["PATH"]])
    launch = Launch(hosts, directory, time.monotonic())
    try:
        for name, variables in (fronts or {"h1": {}}).items():
            out, err = directory / f"{name}.out", directory / f"{name}.err"
            with out.open("w") as out_file, err.open("w") as err_file:
                command = subprocess.Popen(
                    hosts[name].command("bash", "-e", "-c", block, directory=directory),
                    env=environment | variables,
                    stdin=subprocess.DEVNULL,
                    stdout=out_file,
                    stderr=err_file,
                )
            launch.fronts.append(Front(name, command, out, err))
        yield launch
    finally:
        launch.kill()
