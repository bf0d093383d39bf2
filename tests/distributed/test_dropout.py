"""With dropout, too, every layout gives the run of one process: masks follow from seed, step, sample and place alone.

The matrix has a cell with dropout for each grid; here each way to cut a run stands by itself, so that a failure says which one it is.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from tests.distributed.matrix.cell import ONE, Cell, Grid
from tests.distributed.matrix.reference import reference
from tests.distributed.matrix.running import Verdict, run_cells

DROPOUT = 0.2
FUSED = {"bias_dropout_fusion": True, "rope_fusion": True}
CELLS = {
    "accumulation": Cell(accumulation=4),
    "recomputation": Cell(recompute=2),
    "data": Cell(Grid(data=2)),
    "data, zero 1, accumulation": Cell(Grid(data=2), zero=1, accumulation=4),
    "tensor": Cell(Grid(tensor=2), heads="grouped"),
    "tensor in sequence, parallel residual": Cell(Grid(tensor=2, in_sequence=True), residual="parallel"),
    "context, flash": Cell(Grid(context=2), attention="flash"),
    "pipeline, documents, accumulation, recomputation": Cell(
        Grid(pipe=2), mask="documents", accumulation=4, recompute=1
    ),
    "pipeline and tensor in sequence": Cell(Grid(pipe=2, tensor=2, in_sequence=True), accumulation=4),
    "data, zero 3, bias and residual added with dropout": Cell(Grid(data=2), zero=3, extra=FUSED),
    "tensor in sequence, bias and residual added with dropout": Cell(
        Grid(tensor=2, in_sequence=True), residual="parallel", extra=FUSED
    ),
    "context and tensor in sequence, recomputation": Cell(Grid(context=2, tensor=2, in_sequence=True), recompute=1),
}


def with_dropout(cell: Cell, probability: float = DROPOUT) -> Cell:
    return replace(cell, dropout=probability, blocks=2)


@cache
def verdicts() -> dict[str, Verdict]:
    return dict(zip(CELLS, run_cells([with_dropout(cell) for cell in CELLS.values()]), strict=True))


@pytest.mark.parametrize("name", CELLS)
def test_a_layout_drops_what_one_process_drops(name: str) -> None:
    verdict = verdicts()[name]
    assert not verdict.red, (verdict.where, verdict.deviations)


def test_dropout_changes_the_run() -> None:
    losses = [reference(with_dropout(Cell(ONE), probability)).losses for probability in (0.0, DROPOUT, 0.3)]
    assert min(abs(one - other) for one, other in zip(losses[0], losses[1], strict=True)) > 1e-3
    assert min(abs(one - other) for one, other in zip(losses[1], losses[2], strict=True)) > 1e-3
