"""Hostfiles and include/exclude filters in DeepSpeed's notation."""

from __future__ import annotations

import pytest

from megatron.errors import ConfigError
from megatron.launcher.base import Host
from megatron.launcher.hostfile import exclude_hosts, include_hosts, read_hostfile

HOSTS = (Host("worker-1", (0, 1, 2, 3)), Host("worker-2", (0, 1, 2, 3)))


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


def test_include_takes_whole_hosts_and_single_slots():
    assert include_hosts(HOSTS, "worker-2:2,0@worker-1") == (HOSTS[0], Host("worker-2", (0, 2)))
    assert include_hosts(HOSTS, "worker-2") == (HOSTS[1],)


def test_exclude_leaves_out_whole_hosts_and_single_slots():
    assert exclude_hosts(HOSTS, "worker-1@worker-2:0,3") == (Host("worker-2", (1, 2)),)
    assert exclude_hosts(HOSTS, "worker-1:0,1,2,3") == (HOSTS[1],)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("worker-3", 'there is no host "worker-3".*did you mean "worker-'),
        ("worker-1:4", 'host "worker-1" has no device "4"; choose among 0, 1, 2, 3'),
        ("worker-1:a", 'has no device "a"'),
        ("worker-1:0@worker-1:1", 'host "worker-1" is named twice'),
    ],
)
def test_filters_that_do_not_fit_the_hosts(text, message):
    with pytest.raises(ConfigError, match=message):
        include_hosts(HOSTS, text)


def test_excluding_everything_is_refused():
    with pytest.raises(ConfigError, match="leaves no host"):
        exclude_hosts(HOSTS, "worker-1@worker-2")
