from __future__ import annotations

from collections.abc import Sequence

from megatron.doctor.facts.node import NodeFacts
from megatron.doctor.nodes.survey import Examined, examine_fit
from megatron.launcher.base import Host
from tests.unit.doctor.builders import node

HOSTS = [Host(name, (0,)) for name in ("a", "b", "c")]


def facts_of(hosts: Sequence[Host]) -> dict[str, NodeFacts]:
    return {host.name: found for host in hosts if (found := node(host.name).facts) is not None}


class Cluster:
    """Hosts of which some are ill: a job on them fails, and blames them, or all."""

    def __init__(self, ill: set[str], *, blames_all: bool = False) -> None:
        self.jobs: list[str] = []
        self._ill, self._blames_all = ill, blames_all

    def examine(self, hosts: Sequence[Host]) -> Examined:
        names = [host.name for host in hosts]
        self.jobs.append("".join(names))
        ill = [name for name in names if name in self._ill]
        if not ill:
            return facts_of(hosts), {}
        return {}, dict.fromkeys(names if self._blames_all else ill, "it is ill")


def test_machines_that_are_well_take_one_job() -> None:
    cluster = Cluster(set())
    facts, problems = examine_fit(HOSTS, cluster.examine)
    assert (set(facts), problems, cluster.jobs) == ({"a", "b", "c"}, {}, ["abc"])


def test_one_that_is_lost_is_left_out_of_the_next_job() -> None:
    cluster = Cluster({"b"})
    facts, problems = examine_fit(HOSTS, cluster.examine)
    assert (set(facts), problems, cluster.jobs) == ({"a", "c"}, {"b": "it is ill"}, ["abc", "ac"])


def test_of_several_that_are_blamed_each_is_tried_by_itself() -> None:
    cluster = Cluster({"b"}, blames_all=True)
    facts, problems = examine_fit(HOSTS, cluster.examine)
    assert (set(facts), problems, cluster.jobs) == ({"a", "c"}, {"b": "it is ill"}, ["abc", "a", "b", "c", "ac"])


def test_machines_that_are_well_only_by_themselves_are_examined_so() -> None:
    def examine(hosts: Sequence[Host]) -> Examined:
        return (facts_of(hosts), {}) if len(hosts) == 1 else ({}, {host.name: "together they fail" for host in hosts})

    facts, problems = examine_fit(HOSTS, examine)
    assert (set(facts), problems) == ({"a", "b", "c"}, {})


def test_when_all_are_ill_it_ends() -> None:
    facts, problems = examine_fit(HOSTS, Cluster({"a", "b", "c"}).examine)
    assert (facts, set(problems)) == ({}, {"a", "b", "c"})


def test_without_machines_there_is_nothing_to_do() -> None:
    assert examine_fit([], Cluster(set()).examine) == ({}, {})
