"""Examines every machine of a job, each by a surveyor that the job's launcher starts there. Machines that cannot be reached do not hinder it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from megatron.doctor.facts.node import NodeFacts, NodeReport
from megatron.doctor.nodes.desk import Desk
from megatron.doctor.nodes.jobs import Clinic, reason_of
from megatron.doctor.nodes.marks import marks_in
from megatron.launcher.base import Host
from megatron.launcher.hosts.reachable import unreachable

SCRIPT = "surveyor.py"

Examined = tuple[dict[str, NodeFacts], dict[str, str]]
"""Facts of hosts, and why others could not be examined, by name."""


def survey(clinic: Clinic, hosts: Sequence[Host], folders: Mapping[str, str]) -> list[NodeReport]:
    """What there is to know of each host, or why it could not be examined. folders: where the run writes, by key.

    Raises NeoXError when the launcher cannot start anything at all.
    """
    tries = clinic.launcher.needs_ssh and not clinic.args.no_ssh_check
    problems = dict(unreachable(hosts)) if tries else {}
    with marks_in(folders) as marks:

        def examine(some: Sequence[Host]) -> Examined:
            return _examine(clinic, some, folders, marks)

        facts, others = examine_fit([host for host in hosts if host.name not in problems], examine)
    problems |= others
    return [NodeReport(host.name, host.slots, facts.get(host.name), problems.get(host.name, "")) for host in hosts]


def examine_fit(hosts: Sequence[Host], examine: Callable[[Sequence[Host]], Examined]) -> Examined:
    """Examine hosts together, leaving out those that hinder it. One that fails may let others seem to: each of several that are blamed is
    tried by itself, and only those that fail then are at fault.
    """
    problems: dict[str, str] = {}
    left = list(hosts)
    while left:
        facts, blamed = examine(left)
        if facts:
            return facts, {**problems, **blamed}
        alone: dict[str, NodeFacts] = {}
        if len(blamed) > 1:
            each = [examine([host]) for host in left if host.name in blamed]
            alone = {name: found for facts, _ in each for name, found in facts.items()}
            blamed = {name: why for _, reasons in each for name, why in reasons.items()}
        problems |= blamed
        if not blamed:
            return alone, problems
        left = [host for host in left if host.name not in problems]
    return {}, problems


def _examine(
    clinic: Clinic, hosts: Sequence[Host], folders: Mapping[str, str], marks: Mapping[str, tuple[str, str]]
) -> Examined:
    """One job with a surveyor a machine. Where it fails as a whole there are no facts, and blamed are those it has lost, else all."""
    names = [host.name for host in hosts]
    with Desk(names, folders, marks) as desk:
        single = [Host(host.name, host.slots[:1]) for host in hosts]
        outcome = clinic.run(SCRIPT, single, desk.environment(clinic.addresses(hosts)))
    if outcome.status == 0:
        silent = [name for name in names if name not in desk.facts]
        return desk.facts, {name: desk.problems.get(name, "its surveyor told nothing") for name in silent}
    blamed = [host.name for host in outcome.lost] or names
    return {}, dict.fromkeys(blamed, reason_of(outcome))
