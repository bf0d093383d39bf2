"""What the doctor says: findings, in sections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "absent", "warning", "failure"]
"""absent: not there and not needed. A warning costs something, a failure ends a run."""

LEVELS: tuple[Level, ...] = ("ok", "absent", "warning", "failure")


@dataclass(frozen=True)
class Finding:
    """One line of the report. fix: what to do about it, a command or a sentence; empty where there is nothing to do."""

    subject: str
    level: Level
    text: str
    fix: str = ""


@dataclass(frozen=True)
class Section:
    """A headline, a table (its first row are the names of the columns; those numbered in `right` hold numbers) and findings."""

    title: str
    findings: Sequence[Finding]
    table: Sequence[Sequence[str]] = ()
    right: Sequence[int] = ()


def worst(findings: Iterable[Finding]) -> Level:
    """The gravest level of some findings; "ok" of none."""
    return max((finding.level for finding in findings), key=LEVELS.index, default="ok")


def totals(sections: Iterable[Section]) -> dict[Level, int]:
    """How many findings there are of each level that occurs."""
    counted = Counter(finding.level for section in sections for finding in section.findings)
    return {level: counted[level] for level in LEVELS if counted[level]}
