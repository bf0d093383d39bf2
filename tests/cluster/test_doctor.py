"""`deepy.py doctor` on real hosts: what it says of two that are well, of one that is nobody, and of a folder and ports that are not as they should be."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.hosts import NOBODY, Hosts
from tests.cluster.ways import QUIET, Way
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.cluster


DOCTOR = (sys.executable, REPOSITORY / "deepy.py", "doctor", "--json")


@pytest.fixture
def hosts(ways: Callable[[str], Way]) -> Hosts:
    return ways("pdsh").hosts


def doctor(hosts: Hosts, directory: Path, hostfile: str, *words: object) -> tuple[int, dict[str, Any]]:
    """What `deepy.py doctor` finds out of the hosts of a hostfile."""
    (directory / "hosts").write_text(hostfile)
    return told_on_h1(hosts, *DOCTOR, f"hostfile={directory / 'hosts'}", *words)


def told_on_h1(hosts: Hosts, *command: object) -> tuple[int, dict[str, Any]]:
    """The exit status of a doctor on h1, and what it tells."""
    done = subprocess.run(
        hosts["h1"].command(*command, directory=REPOSITORY), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def findings(told: dict[str, Any], level: str) -> list[tuple[str, str]]:
    """(subject, text) of the findings of a level that are not about this machine alone."""
    sections = told["sections"][3:]
    return [(each["subject"], each["text"]) for part in sections for each in part["findings"] if each["level"] == level]


def test_two_hosts_that_are_well_exchange_data_rightly(hosts: Hosts, tmp_path: Path) -> None:
    status, told = doctor(hosts, tmp_path, "h1 slots=1\nh2 slots=1\n")
    assert status == 0, told["sections"]
    assert not findings(told, "failure")
    first, second = told["facts"]["nodes"]
    assert [node["facts"]["machine"]["host"] for node in (first, second)] == ["h1", "h2"]
    assert first["facts"]["peers"] == {"h2": ""}
    assert second["facts"]["peers"] == {"h1": ""}
    assert all(abs(node["facts"]["skew"]) <= node["facts"]["round_trip"] for node in (first, second)), "one clock"
    assert told["facts"]["bandwidth"]["hosts"] == ["h1", "h2"]
    assert "Collective operations of 2 ranks on 2 machines, CPU, gloo" in [part["title"] for part in told["sections"]]


def test_a_host_that_is_nobody_is_a_row_and_the_others_are_examined(hosts: Hosts, tmp_path: Path) -> None:
    status, told = doctor(hosts, tmp_path, f"h1 slots=1\n{NOBODY} slots=1\nh2 slots=1\n", "--quick")
    assert status == 1
    ((subject, text),) = findings(told, "failure")
    assert subject == NOBODY
    assert text.startswith("could not be examined: connect to host")
    assert [node["facts"] is not None for node in told["facts"]["nodes"]] == [True, False, True]


def test_a_folder_that_every_host_has_for_itself_is_a_failure(hosts: Hosts, tmp_path: Path) -> None:
    """Each host has its own /dev/shm, in which a checkpoint would lie in pieces."""
    config = tmp_path / "config.yml"
    config.write_text(
        yaml.safe_dump(QUIET | {"save": "/dev/shm/run", "log_dir": str(tmp_path / "logs"), "checkpoint_factor": 5})
    )
    status, told = doctor(hosts, tmp_path, "h1 slots=1\nh2 slots=1\n", config, "--quick")
    assert status == 1
    failures = dict(findings(told, "failure"))
    assert "save: /dev/shm/run is not the folder that this machine sees (No such file or directory)" in failures["h2"]
    assert "h1" not in failures
    assert ("folders", "log_dir: a file written here is seen with its content on every machine") in findings(told, "ok")


def test_an_allocation_says_which_hosts_to_examine(ways: Callable[[str], Way]) -> None:
    allocation = ("salloc", "--quiet", "--nodes=2", "--ntasks-per-node=1")
    status, told = told_on_h1(ways("slurm").hosts, *allocation, *DOCTOR, "num_gpus=1", "--quick")
    assert status == 0, told["sections"]
    assert [node["facts"]["machine"]["host"] for node in told["facts"]["nodes"]] == ["h1", "h2"]
