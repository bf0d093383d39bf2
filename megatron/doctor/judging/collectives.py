"""Whether the ranks of a job exchange data rightly, and which of them slow the others down."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from megatron.doctor.facts.bandwidth import Bandwidth, Pair, bus_bytes
from megatron.doctor.findings import Finding, Section
from megatron.text import MIB

SLOW = 0.5
"""Share of the median of its like below which a pair of neighbours is called slow: noise of a shared network is less than that."""
FEWEST_TO_COMPARE = 3


def bandwidth_section(bandwidth: Bandwidth) -> Section:
    """The rates of all sizes, and findings."""
    ranks = len(bandwidth.hosts)
    machines = len(set(bandwidth.hosts))
    on = f" on {machines} machines" if machines > 1 else ""
    title = f"Collective operations of {ranks} ranks{on}, {bandwidth.device}, {bandwidth.backend}"
    return Section(title, judge_bandwidth(bandwidth), bandwidth_table(bandwidth), right=(1, 2, 3))


def bandwidth_table(bandwidth: Bandwidth) -> list[list[str]]:
    """A row a size: microseconds or milliseconds of a call, and GB/s that each rank sends (bus bandwidth)."""
    rows = [["operation", "size", "time", "bus bandwidth"]]
    for each in sorted(bandwidth.collectives, key=lambda each: (each.operation, each.bytes)):
        rate = bus_bytes(each.operation, each.bytes, len(bandwidth.hosts)) / each.seconds
        rows.append([each.operation, _size(each.bytes), f"{each.seconds * 1e3:.3g} ms", f"{rate / 1e9:.3g} GB/s"])
    return rows


def judge_bandwidth(bandwidth: Bandwidth) -> list[Finding]:
    """Right or wrong results, and slow neighbours."""
    findings = [
        Finding(
            "results",
            "failure",
            f"rank {rank} on {bandwidth.hosts[rank]}: {problem}",
            "leave this machine or device out (exclude), and have it tested",
        )
        for rank, problem in bandwidth.wrong.items()
    ]
    if not findings:
        findings.append(Finding("results", "ok", "every element of all-reduce and all-gather is right on every rank"))
    return findings + _judge_pairs(bandwidth)


def _judge_pairs(bandwidth: Bandwidth) -> list[Finding]:
    inside = [pair for pair in bandwidth.pairs if not _crosses(bandwidth, pair)]
    across = [pair for pair in bandwidth.pairs if _crosses(bandwidth, pair)]
    kinds = (("between ranks of one machine", inside), ("between machines", across))
    return [finding for kind, pairs in kinds if pairs for finding in _judge_kind(bandwidth, kind, pairs)]


def _judge_kind(bandwidth: Bandwidth, kind: str, pairs: Sequence[Pair]) -> list[Finding]:
    middle = statistics.median(pair.rate for pair in pairs)
    slow = [pair for pair in pairs if len(pairs) >= FEWEST_TO_COMPARE and pair.rate < SLOW * middle]
    if slow:
        fix = "look at cables, network adapters, and other jobs on these machines; all ranks wait for the slowest"
        return [
            Finding("neighbours", "warning", f"{kind}: {_named(bandwidth, pair)}, the median is {_rate(middle)}", fix)
            for pair in sorted(slow, key=lambda pair: pair.rate)
        ]
    slowest = min(pairs, key=lambda pair: pair.rate)
    if len(pairs) == 1:
        return [Finding("neighbours", "ok", f"{kind}: {_named(bandwidth, slowest)} each way")]
    return [
        Finding(
            "neighbours",
            "ok",
            f"{kind}: {_rate(middle)} each way in the median, the slowest are {_named(bandwidth, slowest)}",
        )
    ]


def _crosses(bandwidth: Bandwidth, pair: Pair) -> bool:
    first, second = pair.ranks
    return bandwidth.hosts[first] != bandwidth.hosts[second]


def _named(bandwidth: Bandwidth, pair: Pair) -> str:
    first, second = pair.ranks
    where = f" ({bandwidth.hosts[first]}, {bandwidth.hosts[second]})" if _crosses(bandwidth, pair) else ""
    return f"ranks {first} and {second}{where} at {_rate(pair.rate)}"


def _rate(rate: float) -> str:
    return f"{rate / 1e9:.3g} GB/s"


def _size(size: int) -> str:
    return f"{size / MIB:.3g} MiB" if size >= MIB else f"{size / 1024:.3g} KiB"
