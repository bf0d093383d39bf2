"""Include and exclude filters in DeepSpeed's notation."""

from __future__ import annotations

import pytest

from megatron.errors import ConfigError
from megatron.launcher.base import Host
from megatron.launcher.hosts.filters import exclude_hosts, include_hosts

HOSTS = (Host("worker-1", (0, 1, 2, 3)), Host("worker-2", (0, 1, 2, 3)))


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
