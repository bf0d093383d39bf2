"""The machines of a job beside each other: versions, devices, network and folders that must fit together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from megatron.doctor.facts.machine import Machine
from megatron.doctor.facts.node import NodeFacts, NodeReport
from megatron.doctor.findings import Finding

COMPARED = ("torch", "deepspeed", "numpy")
"""Packages whose versions decide what ranks compute and exchange."""


def judge_together(
    reports: Sequence[NodeReport], known: Mapping[str, NodeFacts], *, wanted_port: int, port_is_fixed: bool
) -> list[Finding]:
    """What differs between machines, and what is equal on all. known: facts of those that could be examined; wanted_port: master_port;
    port_is_fixed: whether the config names it, so that a run takes no other.
    """
    findings = [*_versions(known), *_devices(reports), *_network(known, wanted_port, port_is_fixed)]
    if any(facts.shared for facts in known.values()):
        findings.append(_folders(known))
    return findings


def _versions(known: Mapping[str, NodeFacts]) -> list[Finding]:
    """Equal versions on all machines, or who has which."""
    asked: dict[str, Callable[[Machine], str]] = {
        "project": lambda machine: machine.source,
        "Python": lambda machine: machine.python,
        **{package: _version_of(package) for package in COMPARED},
    }
    different = []
    for what, of in asked.items():
        versions: dict[str, list[str]] = {}
        for name, facts in known.items():
            versions.setdefault(of(facts.machine), []).append(name)
        if len(versions) > 1:
            who = "; ".join(f"{version} on {', '.join(names)}" for version, names in versions.items())
            different.append(Finding("versions", "failure", f"{what} differs: {who}", _same(what)))
    if different or not known:
        return different
    machine = next(iter(known.values())).machine
    told = ", ".join(f"{package} {machine.packages.get(package, 'missing')}" for package in COMPARED)
    return [
        Finding(
            "versions",
            "ok",
            f"Python {machine.python}, {told}, and the same modules of the project ({machine.source}) everywhere",
        )
    ]


def _version_of(package: str) -> Callable[[Machine], str]:
    return lambda machine: machine.packages.get(package, "missing")


def _same(what: str) -> str:
    if what == "project":
        return "put the project on a shared file system, or the same commit on every machine"
    return f"install the same {what} on every machine, best by one environment on a shared file system"


def _devices(reports: Sequence[NodeReport]) -> Iterator[Finding]:
    """Devices against slots; a job computes on GPUs everywhere or nowhere."""
    known = [(report, report.facts.machine.gpus.devices) for report in reports if report.facts is not None]
    if not any(devices for _, devices in known):
        return
    for report, devices in known:
        needed = max(report.slots) + 1
        if len(devices) < needed:
            what = f"has {len(devices)} GPU{'s' if len(devices) != 1 else ''}, and slot {needed - 1} is wanted there"
            yield Finding(
                report.name,
                "failure",
                what,
                f"set slots={len(devices)} in the hostfile"
                if devices
                else "look at its driver, or leave it out (exclude)",
            )
    kinds: dict[str, list[str]] = {}
    for report, devices in known:
        for name in dict.fromkeys(gpu.name for gpu in devices):
            kinds.setdefault(name, []).append(report.name)
    if len(kinds) > 1:
        who = "; ".join(f"{kind} on {', '.join(names)}" for kind, names in kinds.items())
        yield Finding(
            "GPUs",
            "warning",
            f"not all the same: {who}",
            "the fastest wait for the slowest; use equal machines (include, exclude)",
        )
    else:
        yield Finding("GPUs", "ok", f"{next(iter(kinds))} everywhere")


def _network(known: Mapping[str, NodeFacts], wanted_port: int, port_is_fixed: bool) -> Iterator[Finding]:
    if len(known) < 2:
        return
    used = {facts.meeting_port for facts in known.values()} - {wanted_port}
    if used and port_is_fixed:
        what = f"master_port {wanted_port} is taken on the first machine, and the config asks for this one"
        yield Finding("network", "failure", what, "choose another one, or remove the key to have a free one chosen")
    elif used:
        what = f"master_port {wanted_port} is taken on the first machine; {used.pop()} was used in its place"
        yield Finding("network", "warning", what, "set another master_port, if a firewall lets only one pass")
    if not any(problem for facts in known.values() for problem in (facts.meeting_place, *facts.peers.values())):
        slowest = max(facts.round_trip for facts in known.values())
        yield Finding(
            "network",
            "ok",
            f"every machine reaches the others; round trips from here of {slowest * 1e3:.2g} ms at most",
        )


def _folders(known: Mapping[str, NodeFacts]) -> Finding:
    keys = dict.fromkeys(key for facts in known.values() for key, problem in facts.shared.items())
    good = [key for key in keys if not any(facts.shared.get(key) for facts in known.values())]
    if not good:
        return Finding("folders", "absent", "none is the same on all machines")
    return Finding("folders", "ok", f"{', '.join(good)}: a file written here is seen with its content on every machine")
