"""The test of collective operations, between two real ranks."""

from __future__ import annotations

import pytest
import torch

from megatron.doctor.children import measuring
from megatron.doctor.children.measuring import measure, pattern, ring_phases
from megatron.doctor.facts.bandwidth import Bandwidth, Collective, Pair, bus_bytes
from megatron.initialize import initialize, shutdown
from megatron.mpu.topology import Topology
from tests.worlds import run_world

CPU = torch.device("cpu")


@pytest.mark.parametrize("ranks", [2, 3, 4, 5, 8])
def test_every_rank_meets_its_neighbours_once_and_never_two_at_a_time(ranks: int) -> None:
    phases = ring_phases(ranks)
    edges = [frozenset(pair) for pairs in phases for pair in pairs]
    assert set(edges) == {frozenset((rank, (rank + 1) % ranks)) for rank in range(ranks)}
    assert len(edges) == len(set(edges))
    for pairs in phases:
        busy = [rank for pair in pairs for rank in pair]
        assert len(busy) == len(set(busy))


def test_alone_there_is_nobody_to_meet() -> None:
    assert ring_phases(1) == []


def test_numbers_differ_by_rank_and_place() -> None:
    assert not torch.equal(pattern(2000, 0, CPU), pattern(2000, 1, CPU))
    assert not torch.equal(pattern(2000, 0, CPU)[:1000], pattern(2000, 0, CPU)[1000:])


def _measure(rank: int) -> tuple[list[Collective], list[Pair], str, str]:
    groups, device = initialize(topology=Topology(pipe=1, data=2, tensor=1))
    measuring.SECONDS_A_SIZE = 0.01
    collectives, pairs, wrong = measure(groups.world, device)
    right, measuring.all_reduce = measuring.all_reduce, _one_element_off
    planted = measuring._all_reduce(100, groups.world, device)[2]
    measuring.all_reduce = right
    shutdown()
    return collectives, pairs, wrong, planted


def _one_element_off(x: torch.Tensor, group: object) -> torch.Tensor:
    x = x.clone()
    torch.distributed.all_reduce(x)
    x[17] += 1
    return x


def test_two_ranks_find_right_results_and_the_same_times() -> None:
    first, second = run_world(2, _measure)
    collectives, pairs, wrong, planted = first
    assert wrong == second[2] == ""
    assert collectives == second[0], "the slowest rank's times count everywhere"
    assert pairs == second[1]
    assert [(each.operation, each.bytes) for each in collectives] == [
        (operation, size) for size in measuring.SIZES["cpu"] for operation in ("all-reduce", "all-gather")
    ]
    assert all(each.seconds > 0 for each in collectives)
    assert [pair.ranks for pair in pairs] == [(0, 1)]
    assert planted == "1 of 100 elements of an all-reduce are wrong"


def test_what_was_measured_survives_its_journey() -> None:
    measured = Bandwidth(
        "CPU", "gloo", ["a", "b"], [Collective("all-reduce", 8, 0.5)], [Pair((0, 1), 4, 0.25)], {1: "wrong"}
    )
    assert Bandwidth.from_json(measured.to_json()) == measured


def test_the_bytes_on_the_bus_are_those_of_a_ring() -> None:
    assert bus_bytes("all-reduce", 1000, 2) == 1000
    assert bus_bytes("all-reduce", 1000, 4) == 1500
    assert bus_bytes("all-gather", 1000, 4) == 750
