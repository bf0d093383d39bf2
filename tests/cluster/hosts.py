"""Hosts on one machine: each has its own network, name, processes, shared memory and /run; the files are the machine's, as on a shared disk.

All of them live in namespaces that nothing outside can see, so two test sessions on one machine do not meet. A network of its own, the
switch, joins them. A host lives as long as its first process (`init.py`), which ends with the process that started it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NETWORK = "10.77.0"
NAMES = ("h1", "h2", "h3")
NOBODY = f"{NETWORK}.99"
"""An address of the network that no host has."""
END_SECONDS = 30.0
PRIVATE = ("/run", "/dev/shm")


@dataclass(frozen=True)
class Process:
    """A process as the machine sees it. pid: outside all hosts."""

    host: str
    pid: int
    words: tuple[str, ...]


@dataclass(frozen=True)
class Host:
    """A running host. first: its first process's number outside; daemons: processes that belong to the host and not to a test."""

    name: str
    address: str
    first: int
    daemons: set[int] = field(default_factory=set, compare=False)

    def command(self, *words: object, directory: Path | None = None) -> list[str]:
        """The command line that runs `words` on this host."""
        enter = ["nsenter", f"--target={self.first}", "--mount", "--uts", "--ipc", "--net", "--pid"]
        return [*enter, *([f"--wdns={directory}"] if directory else []), "--", *map(str, words)]

    def run(self, *words: object, timeout: float = 30, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program on this host to its end; both outputs are kept."""
        return subprocess.run(
            self.command(*words), capture_output=True, text=True, check=False, timeout=timeout, **options
        )

    def must(self, *words: object, timeout: float = 30, **options: Any) -> str:
        """What the program printed; RuntimeError with all it said when it failed."""
        done = self.run(*words, timeout=timeout, **options)
        if done.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(map(str, words))} failed: {done.stdout}{done.stderr}")
        return done.stdout

    def processes(self) -> list[Process]:
        """Everything that runs on this host, but for its first process, its daemons, and what is dead already."""
        space = os.readlink(f"/proc/{self.first}/ns/pid")
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) in {self.first, *self.daemons}:
                continue
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
                if words and os.readlink(entry / "ns" / "pid") == space:
                    found.append(Process(self.name, int(entry.name), tuple(words)))
        return found

    def adopt(self) -> None:
        """What runs now are daemons of the host."""
        self.daemons.update(process.pid for process in self.processes())


@dataclass(frozen=True)
class Hosts:
    """The hosts by name, the switch between them, and a directory that all of them see and that goes when they go."""

    switch: Host
    directory: Path
    by_name: dict[str, Host]

    def __getitem__(self, name: str) -> Host:
        return self.by_name[name]

    def __iter__(self) -> Iterator[Host]:
        return iter(self.by_name.values())

    def link(self, name: str, state: str) -> None:
        """Pull the host's cable (`down`) or put it back (`up`): nobody is told, its packets and those to it are lost."""
        self.switch.must("ip", "link", "set", f"to-{name}", state)

    def processes(self) -> list[Process]:
        """Everything that runs on any host beyond its daemons."""
        return [process for host in self for process in host.processes()]


@contextlib.contextmanager
def hosts(names: Sequence[str] = NAMES) -> Iterator[Hosts]:
    """Start hosts of these names, joined by a switch; all of it is gone afterwards, whatever happens to this process."""
    directory = Path(tempfile.mkdtemp(prefix="hosts-"))
    addresses = {name: f"{NETWORK}.{number}" for number, name in enumerate(names, start=1)}
    known = "".join(f"{address} {name}\n" for name, address in addresses.items())
    (directory / "hosts").write_text("127.0.0.1 localhost\n" + known)
    with contextlib.ExitStack() as stack:
        # The last to end: it removes the directory.
        switch = stack.enter_context(_running("switch", "", "--remove", str(directory)))
        switch.must("ip", "link", "add", "name", "bridge", "type", "bridge")
        switch.must("ip", "link", "set", "bridge", "up")
        by_name = {}
        for name, address in addresses.items():
            words = [f"--private={each}" for each in PRIVATE]
            words += [f"--replace={path}={file}" for path, file in _replaced(directory).items()]
            by_name[name] = stack.enter_context(_running(name, address, *words))
            _connect(switch, by_name[name])
        yield Hosts(switch, directory, by_name)


def _replaced(directory: Path) -> dict[str, Path]:
    """Places where a host shows files of the cluster in place of the machine's."""
    places = {"/etc/hosts": directory / "hosts", "/etc/ssh/ssh_config": directory / "ssh_config"}
    places |= {"/etc/slurm": directory / "slurm"}
    (directory / "slurm").mkdir(exist_ok=True)
    (directory / "ssh_config").touch()
    return {place: file for place, file in places.items() if Path(place).exists()}


@contextlib.contextmanager
def _running(name: str, address: str, *words: str) -> Iterator[Host]:
    """The first process of a host, while it runs."""
    init = [sys.executable, "-S", "-E", str(Path(__file__).with_name("init.py")), name, *words]
    unshare = ["unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with subprocess.Popen(
        [*unshare, "--", *init], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout
        try:
            said = process.stdout.readline()
            if said != b"ready\n":
                raise RuntimeError(f"host {name} does not start: {(said + process.stdout.read()).decode()}")
            host = Host(name, address, first_child(process.pid))
            host.must("ip", "link", "set", "lo", "up")
            yield host
        finally:
            assert process.stdin
            process.stdin.close()
            try:
                process.wait(END_SECONDS)
            except (
                subprocess.TimeoutExpired
            ):  # a dead process of the host waits for a parent outside, which must not hang this one
                process.kill()


def first_child(pid: int) -> int:
    """The number of the process that `pid` started."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _connect(switch: Host, host: Host) -> None:
    """Lay the cable between a host and the switch."""
    port = f"to-{host.name}"
    veth = ["ip", "link", "add", "name", port, "type", "veth", "peer", "name", "eth0", "netns", str(host.first)]
    # Only the network of the switch is entered: the number of the host's process is one of outside.
    subprocess.run(["nsenter", f"--target={switch.first}", "--net", "--", *veth], check=True)
    switch.must("ip", "link", "set", port, "master", "bridge", "up")
    host.must("ip", "link", "set", "eth0", "up")
    host.must("ip", "address", "add", f"{host.address}/24", "dev", "eth0")
