"""The machines of a job, each by itself and beside each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from megatron import text
from megatron.doctor.facts.node import NodeFacts, NodeReport
from megatron.doctor.findings import Finding, Section, worst
from megatron.doctor.judging.gpus import judge_gpus
from megatron.doctor.judging.together import judge_together
from megatron.planning.hardware.devices import recognise

NOTICED_SKEW = 1.0
"""Seconds between clocks above which the lines of logs of different machines cannot be put in order."""
REFUSED_SKEW = 300.0
"""Seconds after which munge, and so Slurm, takes credentials for old."""

SHARED_BY_NEED = ("save",)
"""Folders that must be the same on all machines; of others each machine may have its own."""


def nodes_section(
    reports: Sequence[NodeReport], *, wanted_port: int, port_is_fixed: bool = False, precision: str | None = None
) -> Section:
    """A row a machine, and a finding for each thing that is wrong. wanted_port: master_port; port_is_fixed: whether the config names it;
    precision: that of the run.
    """
    findings = judge_nodes(reports, wanted_port=wanted_port, port_is_fixed=port_is_fixed, precision=precision)
    return Section(f"{len(reports)} machine{'s' if len(reports) > 1 else ''}", findings, node_table(reports, findings))


def judge_nodes(
    reports: Sequence[NodeReport], *, wanted_port: int, port_is_fixed: bool = False, precision: str | None = None
) -> list[Finding]:
    """All that is wrong, by machine; then what is equal on all of them."""
    findings = [finding for report in reports for finding in _judge_node(report, precision)]
    known = {report.name: report.facts for report in reports if report.facts is not None}
    return findings + judge_together(reports, known, wanted_port=wanted_port, port_is_fixed=port_is_fixed)


def node_table(reports: Sequence[NodeReport], findings: Sequence[Finding]) -> list[list[str]]:
    """The columns are the same for all; a machine that could not be examined has dashes."""
    rows = [
        ["machine", "verdict", "reached", "calls itself", "clock", "cores", "memory", "GPUs", "slots", "save: free"]
    ]
    for report in reports:
        own = [finding for finding in findings if finding.subject == report.name]
        rows.append([report.name, worst(own), *_cells(report)])
    return rows


def _cells(report: NodeReport) -> list[str]:
    facts = report.facts
    if facts is None:
        return ["no", *["-"] * 5, str(len(report.slots)), "-"]
    machine = facts.machine
    kinds = Counter(gpu.name for gpu in machine.gpus.devices)
    return [
        f"{facts.came_after:.1f} s",
        machine.host,
        f"{facts.skew * 1e3:+.0f} ms",
        str(machine.cores),
        text.memory(machine.memory_bytes),
        ", ".join(f"{count} x {name}" for name, count in kinds.items()) or "none",
        str(len(report.slots)),
        text.memory(facts.folders["save"].free_bytes) if "save" in facts.folders else "-",
    ]


def _judge_node(report: NodeReport, precision: str | None) -> Iterator[Finding]:
    name, facts = report.name, report.facts
    if facts is None:
        yield Finding(
            name, "failure", f"could not be examined: {report.problem}", "mend that, or leave it out (exclude)"
        )
        return
    yield from _clock(name, facts)
    used = [gpu for gpu in facts.machine.gpus.devices if gpu.index in report.slots]
    kinds = {gpu.name: recognise(gpu.name) for gpu in used}
    lacking = [kind for kind, device in kinds.items() if device is not None and not device.has_bfloat16]
    if precision == "bfloat16" and lacking:
        yield Finding(
            name, "failure", f"{', '.join(lacking)} cannot compute bfloat16", 'set precision to "fp16" or "fp32"'
        )
    for finding in judge_gpus(used):
        yield Finding(name, finding.level, f"{finding.subject}: {finding.text}", finding.fix)
    if facts.machine.gpus.problem:
        yield Finding(
            name, "failure", facts.machine.gpus.problem, "look at the driver (dmesg), or leave it out (exclude)"
        )
    for key, disk in facts.folders.items():
        if disk.problem:
            yield Finding(name, "failure", f"{key}: {disk.path}: {disk.problem}", f"give another folder with {key}")
    for key, problem in facts.shared.items():
        if problem:
            yield _not_shared(name, key, facts, problem)
    if facts.meeting_place:
        fix = "open the ports between the machines, or name the right interface with master_addr"
        yield Finding(name, "failure", f"does not reach where the ranks will meet: {facts.meeting_place}", fix)
    for peer, problem in facts.peers.items():
        if problem:
            fix = "open all ports between the machines: collective operations choose theirs freely"
            yield Finding(name, "failure", f"does not reach {peer}: {problem}", fix)


def _clock(name: str, facts: NodeFacts) -> Iterator[Finding]:
    apart = abs(facts.skew) - facts.round_trip / 2  # at least
    if apart < NOTICED_SKEW:
        return
    ahead = "ahead of" if facts.skew > 0 else "behind"
    what = f"its clock is {abs(facts.skew):.1f} s {ahead} this machine's"
    harm = "munge (Slurm) and stores refuse that" if apart > REFUSED_SKEW else "lines of logs cannot be put in order"
    yield Finding(
        name,
        "failure" if apart > REFUSED_SKEW else "warning",
        f"{what}: {harm}",
        "set it by NTP (chrony, timedatectl set-ntp true)",
    )


def _not_shared(name: str, key: str, facts: NodeFacts, problem: str) -> Finding:
    path = facts.folders[key].path if key in facts.folders else key
    what = f"{key}: {path} is not the folder that this machine sees ({problem})"
    if key in SHARED_BY_NEED:
        return Finding(
            name,
            "failure",
            f"{what}: a checkpoint would lie in pieces",
            "put it on a shared file system, or in a store (save: s3://...)",
        )
    return Finding(
        name,
        "warning",
        f"{what}: each machine keeps its own",
        f"put {key} on a shared file system to have all in one place",
    )
