"""Running cells in worlds of forked ranks: one start serves all cells of a world size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tests.distributed.matrix.cell import Cell
from tests.distributed.matrix.ranks import Job, Part, run_on_rank
from tests.distributed.matrix.reference import reference
from tests.worlds import run_world

TOLERANCES = {"fp64": (1e-10, 1e-10), "fp32": (1e-6, 1e-5), "fp16": (2e-3, 2e-2), "bfloat16": (2e-2, 1e-1)}
"""The largest relative deviations of a green cell by precision: of scalars, of tensors."""

SCALARS = ("loss", "norm", "evaluation")
KINDS = (*SCALARS, "gradients", "weights", "first moments", "second moments", "padding")


@dataclass(frozen=True)
class Verdict:
    """The largest relative deviation of a cell by kind, over ranks and steps; where the worst is; the seconds it took.

    The kind "saved" is infinite unless the ranks together gave every weight and moment exactly once to be saved.
    """

    precision: str
    deviations: dict[str, float]
    where: str
    seconds: float

    @property
    def red(self) -> set[str]:
        """The kinds that deviate by more than is allowed."""
        scalars, tensors = TOLERANCES[self.precision]
        return {kind for kind, value in self.deviations.items() if value > (scalars if kind in SCALARS else tensors)}


def run_cells(cells: Sequence[Cell], *, timeout: float = 240) -> list[Verdict]:
    """The verdict on each cell; timeout: seconds for a world."""
    return run_jobs([Job(cell, reference(cell)) for cell in cells], timeout=timeout)


def run_jobs(jobs: Sequence[Job], *, timeout: float = 240) -> list[Verdict]:
    """The verdict on the cell of each job. References come with the fork: ranks inherit them."""
    verdicts: dict[int, Verdict] = {}
    for size in sorted({job.cell.processes for job in jobs}):
        mine = [index for index, job in enumerate(jobs) if job.cell.processes == size]
        of_ranks = run_world(size, run_on_rank, [jobs[index] for index in mine], timeout_seconds=timeout)
        for index, parts in zip(mine, zip(*of_ranks, strict=True), strict=True):
            verdicts[index] = _judge(parts, jobs[index])
    return [verdicts[index] for index in range(len(jobs))]


def _judge(parts: Sequence[Part], job: Job) -> Verdict:
    worst = {kind: max(part.deviations.get(kind, (0.0, "")) for part in parts) for kind in KINDS}
    deviations = {kind: value for kind, (value, _) in worst.items()}
    expected = job.expected.state
    wrong = [name for name in expected if sum(part.saved.get(name, 0) for part in parts) != expected[name].numel()]
    deviations["saved"] = math.inf if wrong else 0.0
    where = f"not saved exactly once: {wrong[0]}" if wrong else max(worst.values())[1]
    return Verdict(job.cell.precision, deviations, where, max(part.seconds for part in parts))
