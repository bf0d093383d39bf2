"""The hosts themselves: apart from each other and from this machine, and gone when they should be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import cluster
from tests.cluster.hosts import NOBODY, Hosts
from tests.cluster.patience import wait_until
from tests.cluster.requirements import LAUNCHERS, missing_program, obstacle
from tests.conftest import REPOSITORY

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(obstacle() is not None, reason=str(obstacle())),
]


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with cluster(slurm=missing_program("slurm") is None) as running:
        yield running


def test_hosts_have_names_networks_and_processes_of_their_own(hosts: Hosts) -> None:
    assert [host.must("hostname").strip() for host in hosts] == ["h1", "h2", "h3"]
    assert hosts["h1"].must("ssh", "h2", "hostname") == "h2\n"
    assert "sshd" in hosts["h1"].must("ps", "-e")
    assert len(hosts["h1"].must("ps", "-e").splitlines()) < 20
    assert hosts["h1"].run("ping", "-c1", "-W1", NOBODY).returncode != 0


def test_a_pulled_cable_loses_packets_and_is_put_back(hosts: Hosts) -> None:
    ping = ("ping", "-c1", "-W1", "h2")
    hosts["h1"].must(*ping)
    hosts.link("h2", "down")
    assert hosts["h1"].run(*ping).returncode != 0
    hosts.link("h2", "up")
    wait_until(lambda: hosts["h1"].run(*ping).returncode == 0, what="the network")


@pytest.mark.parametrize(
    ("launcher", "command"),
    [
        ("pdsh", "pdsh -N -R ssh -w h1,h2 hostname"),
        ("openmpi", "mpirun --allow-run-as-root --host h1,h2 hostname"),
        ("mpich", "mpirun -hosts h1,h2 hostname"),
        ("slurm", "srun --nodes=2 hostname"),
    ],
)
def test_each_program_that_starts_jobs_reaches_two_hosts(hosts: Hosts, launcher: str, command: str) -> None:
    if why := missing_program(launcher):
        pytest.skip(why)
    path = f"PATH={hosts.directory / 'bin' / launcher}:/usr/bin:/bin"
    assert set(hosts["h1"].must("env", path, *command.split()).split()) == {"h1", "h2"}
    wait_until(lambda: not hosts.processes())


def test_what_runs_on_a_host_is_seen_from_outside(hosts: Hosts) -> None:
    with subprocess.Popen(hosts["h2"].command("sleep", "60")) as sleeping:
        wait_until(lambda: [(each.host, each.words) for each in hosts.processes()] == [("h2", ("sleep", "60"))])
        sleeping.kill()
        assert hosts.processes(), "killing the way in kills nothing inside"
        os.kill(hosts.processes()[0].pid, signal.SIGKILL)
    wait_until(lambda: not hosts.processes())


def test_nothing_is_left_when_the_process_that_made_them_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.cluster.up"], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as up:
        assert up.stdout
        lines = [up.stdout.readline() for _ in range(6)]
        (directory,) = (Path(line.split()[0].partition("=")[2]) for line in lines if line.startswith("SHARED="))
        targets = [word.partition("=")[2] for line in lines for word in line.split() if word.startswith("--target=")]
        subprocess.run(["nsenter", f"--target={targets[0]}", "--net", "--pid", "sh", "-c", "sleep 1000 &"], check=True)
        up.send_signal(signal.SIGKILL)
    assert len(targets) == 4
    wait_until(lambda: not directory.exists(), what="the directory to go")
    wait_until(lambda: not any(Path(f"/proc/{first}").exists() for first in targets), what="the hosts to go")


def test_what_is_not_installed_is_named_by_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.cluster.requirements.WHERE", "/nowhere")
    assert missing_program("slurm") == "not installed: apt-get install munge slurm-wlm"
    assert all(missing_program(name) for name in LAUNCHERS)
