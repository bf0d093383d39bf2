"""Hosts beyond num_nodes stand by, and take the places of those that are lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from megatron.launcher.base import Host
from megatron.launcher.hosts.spares import replace_lost, resolve_spares
from megatron.neox_arguments.keys.runner import RunnerArgs


def host(name: str, slots: int = 4) -> Host:
    return Host(name, tuple(range(slots)))


def spares(tmp_path: Path, **keys: Any) -> tuple[Host, ...]:
    path = tmp_path / "hostfile"
    path.write_text("a slots=4\nb slots=4\nc slots=4\nd slots=2\n")
    return resolve_spares(RunnerArgs(hostfile=str(path), launcher="local", global_num_gpus=1, **keys), environment={})


def test_hosts_beyond_num_nodes_stand_by_where_there_are_restarts(tmp_path: Path) -> None:
    assert spares(tmp_path, max_restarts=1, num_nodes=2) == (host("c"), host("d", 2))
    assert spares(tmp_path, num_nodes=2) == ()
    assert spares(tmp_path, max_restarts=1) == ()
    assert spares(tmp_path, max_restarts=1, num_nodes=4) == ()


def test_spares_are_those_that_the_filters_leave_on_the_devices_that_are_used(tmp_path: Path) -> None:
    assert spares(tmp_path, max_restarts=1, num_nodes=1, exclude="b", num_gpus=3) == (host("c", 3), host("d", 2))


def test_a_spare_takes_the_ranks_of_the_host_that_is_lost() -> None:
    replaced = replace_lost([host("a"), host("b"), host("c")], [host("d", 8), host("e")], ["b"])
    assert replaced.hosts == (host("a"), host("d"), host("c"))
    assert (replaced.missing, replaced.spares) == ((), (host("e"),))
    assert replaced.notes == ("d takes the place of b",)


def test_a_spare_that_is_lost_as_well_is_none() -> None:
    replaced = replace_lost([host("a"), host("b")], [host("c"), host("d"), host("e")], ["c", "a", "b"])
    assert replaced.hosts == (host("d"), host("e"))
    assert replaced.spares == ()


def test_a_spare_with_fewer_slots_replaces_nothing_and_that_is_said() -> None:
    replaced = replace_lost([host("a"), host("b")], [host("c", 1)], ["b"])
    assert replaced.hosts == (host("a"), host("b"))
    assert (replaced.missing, replaced.spares) == (("b",), (host("c", 1),))
    assert replaced.notes == ("c cannot take the place of b: it has 1 slot, b has 4",)


def test_spares_go_where_they_fit() -> None:
    replaced = replace_lost([host("a", 8), host("b", 2)], [host("c", 2), host("d", 8)], ["a", "b"])
    assert replaced.hosts == (host("d", 8), host("c", 2))
