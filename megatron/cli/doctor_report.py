"""The report of `deepy.py doctor`, as lines for the terminal and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from megatron import text
from megatron.cli.styled import Line, plain
from megatron.doctor.examination import Examination
from megatron.doctor.findings import Finding, Level, Section, totals, worst

SHOWN: dict[Level, tuple[str, str]] = {
    "ok": ("ok", "green"),
    "absent": ("-", ""),
    "warning": ("warning", "yellow"),
    "failure": ("failure", "bold red"),
}
"""Word and style of each level."""
LEVEL_WIDTH = 9
LONGEST_SUBJECT = 19


def report_lines(title: str, sections: Sequence[Section]) -> Iterator[Line]:
    """The whole report."""
    yield plain(f"Doctor for {title}", "bold")
    width = _subject_width(sections)
    for section in sections:
        yield plain()
        yield plain(section.title, "bold cyan")
        if section.table:
            yield from map(plain, text.indent(text.table(section.table, right=section.right), 2))
        for finding in section.findings:
            yield from finding_lines(finding, width=width)
    yield plain()
    yield total_line(sections)


def finding_lines(finding: Finding, *, width: int) -> Iterator[Line]:
    """`  ok       torch    2.13.0`, wrapped below the text; the fix on lines of its own. width: of the subjects."""
    word, style = SHOWN[finding.level]
    hanging = LEVEL_WIDTH + width
    first, *others = text.wrap(f"{'':{LEVEL_WIDTH}}{finding.subject:<{width}}{finding.text}", indent=2, hanging=hanging)
    yield [("  ", ""), (word, style), (first[2 + len(word) :], "")]
    yield from map(plain, others)
    if finding.fix:
        yield from map(plain, text.wrap(f"fix: {finding.fix}", indent=2 + hanging, hanging=5))


def total_line(sections: Sequence[Section]) -> Line:
    """How many findings there are of each level."""
    counts = totals(sections)
    words = [f"{counts.get('ok', 0)} ok"]
    words += [
        f"{count} {level}{'s' if count > 1 else ''}"
        for level in ("warning", "failure")
        if (count := counts.get(level, 0))
    ]
    verdict = worst(finding for section in sections for finding in section.findings)
    return plain(", ".join(words), SHOWN[verdict][1])


def record(words: Sequence[str], examination: Examination) -> str:
    """Everything, as one JSON object."""
    facts: dict[str, Any] = {
        name: None if (value := getattr(examination, name)) is None else asdict(value)
        for name in ("machine", "torch", "bandwidth")
    }
    facts["nodes"] = None if examination.nodes is None else [asdict(node) for node in examination.nodes]
    sections = [asdict(section) for section in examination.sections]
    return json.dumps(
        {"words": list(words), "verdict": verdict_of(examination), "sections": sections, "facts": facts}, indent=1
    )


def verdict_of(examination: Examination) -> Level:
    """The gravest level of all findings; what is absent is not needed, so all is well then, too."""
    gravest = worst(finding for section in examination.sections for finding in section.findings)
    return "ok" if gravest == "absent" else gravest


def _subject_width(sections: Sequence[Section]) -> int:
    lengths = (len(finding.subject) for section in sections for finding in section.findings)
    return min(max(lengths, default=0), LONGEST_SUBJECT) + 2
