"""What can be wrong with a cluster, and what happens to a job on it: said in one line, and nothing is left running."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from megatron.launcher.devices import count_devices
from tests.cluster.hosts import NOBODY, Host
from tests.cluster.launches import environment_of
from tests.cluster.ways import HOSTFILE, Way

pytestmark = pytest.mark.cluster

Ways = Callable[[str], Way]
NVIDIA_SMI = """\
#!/bin/sh
echo 'GPU 0: Fake (UUID: GPU-0)'
echo 'GPU 1: Fake (UUID: GPU-1)'
"""


@pytest.fixture(scope="module")
def pdsh(ways: Ways) -> Way:
    return ways("pdsh")


@contextlib.contextmanager
def in_place_of(host: Host, path: str, other: object) -> Iterator[None]:
    """A file or directory of a host, while another is shown in its place."""
    host.must("mount", "--bind", other, path)
    try:
        yield
    finally:
        host.must("umount", path)


def refused(way: Way, directory: Path, *words: str, hostfile: str = HOSTFILE) -> str:
    """The one line with which a job is refused."""
    with way.wait(directory / "run", *words, hostfile=hostfile) as job:
        assert job.finish(30) == 1
        job.seconds_until_nothing_is_left()
        assert not list(job.directory.glob("started.*"))
        (line,) = job.errors
        return line


def test_a_host_that_nobody_has_is_named(pdsh: Way, tmp_path: Path) -> None:
    line = refused(pdsh, tmp_path, hostfile=f"h1 slots=1\n{NOBODY} slots=1\n")
    assert NOBODY in line
    assert "h1" not in line


def test_a_host_that_does_not_let_us_in_is_named(pdsh: Way, tmp_path: Path) -> None:
    with in_place_of(pdsh.hosts["h3"], str(pdsh.hosts.directory / "key.pub"), "/dev/null"):
        line = refused(pdsh, tmp_path, hostfile="h1 slots=1\nh3 slots=1\n")
    assert "h3" in line


@pytest.mark.skipif(count_devices() > 0, reason="there are accelerators, which the hosts hide")
def test_more_slots_than_accelerators_are_told_by_host(pdsh: Way, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "nvidia-smi"
    program.write_text(NVIDIA_SMI)
    program.chmod(0o755)
    with contextlib.ExitStack() as stack:
        for name in ("h1", "h2"):
            stack.enter_context(in_place_of(pdsh.hosts[name], "/usr/local/bin", tmp_path / "bin"))
        line = refused(pdsh, tmp_path, "num_gpus=null", hostfile="h1 slots=2\nh2 slots=4\n")
    assert "h2" in line
    assert "slots=2" in line


@pytest.mark.parametrize(
    ("launcher", "program"),
    [("pdsh", "/usr/bin/pdsh"), ("slurm", "/usr/bin/srun")],
)
def test_a_missing_program_is_named(launcher: str, program: str, ways: Ways, tmp_path: Path) -> None:
    way = ways(launcher)
    with in_place_of(way.hosts["h1"], program, "/dev/null"):
        line = refused(way, tmp_path)
    assert os.path.basename(program) in line


def test_a_polite_signal_reaches_every_host_and_all_is_saved(pdsh: Way, tmp_path: Path) -> None:
    with pdsh.wait(tmp_path / "run") as job:
        job.wait_for("started.0", "started.1")
        os.kill(job.deepy().pid, signal.SIGTERM)
        assert job.finish(20) == 75
        job.seconds_until_nothing_is_left()
        assert {file.name for file in job.directory.glob("saved.?")} == {"saved.0", "saved.1"}
        assert job.errors == []


def test_ranks_save_on_every_host_when_deepy_is_killed(pdsh: Way, tmp_path: Path) -> None:
    with pdsh.wait(tmp_path / "run") as job:
        job.wait_for("started.0", "started.1")
        os.kill(job.deepy().pid, signal.SIGKILL)
        job.finish(20)
        assert job.seconds_until_nothing_is_left() < 10
        assert {file.name for file in job.directory.glob("saved.?")} == {"saved.0", "saved.1"}


def test_a_taken_port_is_replaced(pdsh: Way, tmp_path: Path) -> None:
    listen = "import socket, time; s = socket.create_server(('', 29500)); print('ready', flush=True); time.sleep(100)"
    python = pdsh.hosts["h1"].command("python3", "-c", listen)
    with subprocess.Popen(python, stdout=subprocess.PIPE) as taken, pdsh.wait(tmp_path / "run") as job:
        assert taken.stdout
        taken.stdout.readline()
        job.wait_for("started.0", "started.1")
        ports = {environment_of(job.rank(number).pid)["MASTER_PORT"] for number in (0, 1)}
        assert len(ports) == 1
        assert ports != {"29500"}


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_warning_of_slurm_stops_a_batch_job_politely(nodes: int, ways: Ways, tmp_path: Path) -> None:
    # Not `sbatch --wait`, which looks every ten seconds.
    command = "python deepy.py train.py my.yml launcher=slurm; echo $? > status"
    submit = f"sbatch --nodes={nodes} --output=batch.log --wrap '{command}'"
    block = f"{submit}; until [ -s status ]; do sleep 0.1; done; exit $(cat status)"
    way = ways("slurm")
    with way.wait(tmp_path / "run", block=block) as job:
        job.wait_for(*(f"started.{rank}" for rank in range(nodes)))
        number = way.hosts["h1"].must("squeue", "--noheader", "--format=%i").strip()
        way.hosts["h1"].must("scancel", "--signal=USR1", number)
        assert job.finish(30) == 75, (job.directory / "batch.log").read_text()
        assert {file.name for file in job.directory.glob("saved.?")} == {f"saved.{rank}" for rank in range(nodes)}
        job.seconds_until_nothing_is_left()
