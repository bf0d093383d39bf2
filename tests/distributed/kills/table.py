"""What happened to a run that was killed again and again, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Kill:
    """One kill. doing: what the first rank did last to the directory of checkpoints, or what lay there half done; resumed_from: the iteration, None where it did not come so far.

    others_seconds: how long a rank that was not killed lived on.
    """

    number: int
    moment: str
    doing: str
    resumed_from: int | None
    others_seconds: float
    seconds: float

    def cells(self) -> list[str]:
        """The row of the table."""
        came_from = "-" if self.resumed_from is None else str(self.resumed_from)
        others = f"{self.others_seconds:.1f} s" if self.others_seconds > 0.1 else ""
        return [str(self.number), self.moment, self.doing, came_from, others, f"{self.seconds:.1f} s"]


HEAD = ["kill", "when", "in progress", "resumed from", "others ended after", "seconds"]


def table(kills: Sequence[Kill]) -> str:
    """In Markdown, columns aligned."""
    rows = [HEAD, *(kill.cells() for kill in kills)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)
