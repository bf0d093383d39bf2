"""Hostfiles in DeepSpeed's notation."""

from __future__ import annotations

import os

import pytest

from megatron.errors import ConfigError
from megatron.launcher.base import Host
from megatron.launcher.hosts.hostfile import read_hostfile


def test_a_hostfile_with_comments_and_blank_lines(tmp_path):
    path = tmp_path / "hostfile"
    path.write_text("# our machines\n\nworker-1 slots=2\nworker-2   slots = 4  # the big one\n")
    assert read_hostfile(path) == (Host("worker-1", (0, 1)), Host("worker-2", (0, 1, 2, 3)))


def test_every_wrong_line_is_named_with_file_and_line(tmp_path):
    path = tmp_path / "hostfile"
    path.write_text("worker-1 slots=2\nworker-2 slot=4\nworker-1 slots=1\nworker-3 slots=0\n")
    with pytest.raises(ConfigError) as raised:
        read_hostfile(path)
    first, second, third = raised.value.problems
    assert first.startswith(f"{path}:2:10: expected the number of devices")
    assert first.endswith("hostfile:2 | worker-2 slot=4\n               |          ^^^^^^")
    assert second.startswith(f'{path}:3:1: host "worker-1" is already listed at {path}:1:1; keep one')
    assert third.startswith(f'{path}:4:10: host "worker-3" has no slots')


def test_a_missing_and_an_empty_hostfile(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_hostfile(tmp_path / "none")
    (tmp_path / "empty").write_text("# nothing\n")
    with pytest.raises(ConfigError, match="names no host"):
        read_hostfile(tmp_path / "empty")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="is a folder, a pipe or a device: set hostfile to a file"):
        read_hostfile(tmp_path / "pipe")
