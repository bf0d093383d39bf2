"""Which hosts let this user in, with a program in ssh's place."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from megatron.launcher.base import Host
from megatron.launcher.hosts import reachable
from tests.unit.launcher.launchers.jobs import fake_program

SSH = """
case "$*" in
*closed*) echo "Warning: something else" >&2; echo "ssh: connect to host closed port 22: Connection refused." >&2; exit 255;;
*silent*) exec sleep 30;;
*odd*) exit 3;;
*) sleep 0.3;;
esac
"""


@pytest.fixture(autouse=True)
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    fake_program(tmp_path, "ssh", f'echo "$*" >> {tmp_path}/asked\n{SSH}')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path / "asked"


def why(*names: str) -> dict[str, str]:
    return reachable.unreachable([Host(name, (0,)) for name in names])


def test_every_host_that_is_closed_is_told_with_the_last_line_of_ssh(ssh: Path) -> None:
    assert why("open1", "closed", "joe@open2", "odd") == {
        "closed": "connect to host closed port 22: Connection refused",
        "odd": "ssh ended with status 3",
    }
    asked = ssh.read_text().splitlines()
    assert len(asked) == 4
    assert all("BatchMode=yes" in line and "ConnectTimeout=5" in line and line.endswith(" true") for line in asked)


def test_all_are_tried_at_once() -> None:
    started = time.monotonic()
    assert why(*(f"open{number}" for number in range(16))) == {}
    assert time.monotonic() - started < 16 * 0.3 / 2


def test_this_machine_is_not_tried(ssh: Path) -> None:
    assert why("localhost", socket.gethostname()) == {}
    assert why() == {}
    assert not ssh.exists()


def test_a_host_that_takes_the_connection_and_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reachable, "ANSWER_SECONDS", 0.5)
    assert why("silent") == {"silent": "no answer within 0.5 s"}


def test_without_ssh_it_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert why("open1") == {"open1": "ssh cannot be run: no such file or directory"}
