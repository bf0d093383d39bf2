from __future__ import annotations

from dataclasses import replace

from megatron.doctor.facts.bandwidth import Bandwidth, Collective, Pair
from megatron.doctor.judging.collectives import bandwidth_section, judge_bandwidth

MIB = 2**20


def pair(first: int, second: int, *, rate: float = 1e9) -> Pair:
    return Pair((first, second), 10**9, 1e9 / rate)


GOOD = Bandwidth(
    device="NVIDIA H100",
    backend="nccl",
    hosts=["a", "a", "b", "b", "c", "c"],
    collectives=[Collective("all-reduce", 6 * MIB, 0.001), Collective("all-gather", 6 * MIB, 0.001)],
    pairs=[pair(0, 1, rate=9e9), pair(2, 3, rate=8e9), pair(4, 5, rate=7e9), pair(1, 2), pair(3, 4), pair(5, 0)],
    wrong={},
)


def test_rates_are_those_of_the_bus() -> None:
    section = bandwidth_section(GOOD)
    assert section.title == "Collective operations of 6 ranks on 3 machines, NVIDIA H100, nccl"
    assert section.table[1:] == [
        ["all-gather", "6 MiB", "1 ms", "5.24 GB/s"],
        ["all-reduce", "6 MiB", "1 ms", "10.5 GB/s"],
    ]
    assert {finding.level for finding in section.findings} == {"ok"}


def test_a_rank_with_wrong_results_is_a_failure() -> None:
    wrong = judge_bandwidth(replace(GOOD, wrong={3: "2 of 10 elements of an all-reduce are wrong"}))[0]
    assert (wrong.level, wrong.text) == ("failure", "rank 3 on b: 2 of 10 elements of an all-reduce are wrong")


def test_neighbours_are_compared_with_their_like_alone() -> None:
    """Between machines all are nine times slower than inside of one, which is no finding."""
    texts = [finding.text for finding in judge_bandwidth(GOOD)[1:]]
    assert texts == [
        "between ranks of one machine: 8 GB/s each way in the median, the slowest are ranks 4 and 5 at 7 GB/s",
        "between machines: 1 GB/s each way in the median, the slowest are ranks 1 and 2 (a, b) at 1 GB/s",
    ]


def test_a_slow_pair_is_named() -> None:
    pairs = [*GOOD.pairs[:4], pair(3, 4, rate=0.1e9), GOOD.pairs[5]]
    slow = [finding for finding in judge_bandwidth(replace(GOOD, pairs=pairs)) if finding.level == "warning"]
    assert [finding.text for finding in slow] == [
        "between machines: ranks 3 and 4 (b, c) at 0.1 GB/s, the median is 1 GB/s"
    ]


def test_of_two_machines_none_can_be_called_the_slow_one() -> None:
    two = replace(GOOD, hosts=["a", "b"], pairs=[pair(0, 1, rate=1e6)])
    assert {finding.level for finding in judge_bandwidth(two)} == {"ok"}
    both_ways = replace(GOOD, hosts=["a", "b", "a"], pairs=[pair(0, 1), pair(1, 2, rate=1e6)])
    assert {finding.level for finding in judge_bandwidth(both_ways)} == {"ok"}
