"""What an examination finds out about one machine of a job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from megatron.doctor.facts.disks import Disk
from megatron.doctor.facts.machine import Machine


@dataclass(frozen=True)
class NodeFacts:
    """came_after: seconds from the start of the launcher's programs until it spoke; skew: seconds that its clock is ahead of ours, known to half
    of round_trip; folders: where the run writes, by key; shared: for each of them why it is not the folder that we see here, empty if it is;
    meeting_place: why it cannot reach where the ranks will meet, empty if it can; peers: the same for other machines, by name.
    """

    machine: Machine
    came_after: float
    skew: float
    round_trip: float
    folders: Mapping[str, Disk] = field(default_factory=dict)
    shared: Mapping[str, str] = field(default_factory=dict)
    meeting_place: str = ""
    meeting_port: int = 0
    peers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NodeReport:
    """A machine of the job. slots: of it that are used; problem: why it could not be examined; facts: None then."""

    name: str
    slots: tuple[int, ...]
    facts: NodeFacts | None = None
    problem: str = ""
