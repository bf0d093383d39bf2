"""Every layout gives the run of one process: part of the matrix in each run of the suite, all of it by `make matrix`."""

from __future__ import annotations

import json
from functools import cache

import pytest

from tests.distributed.matrix.cell import Cell, Grid
from tests.distributed.matrix.mutations import BY_NAME
from tests.distributed.matrix.ranks import Job, run_on_rank
from tests.distributed.matrix.reference import reference
from tests.distributed.matrix.report import RESULTS, table, without_deviations, write, written_table
from tests.distributed.matrix.running import Verdict, run_cells
from tests.distributed.matrix.table import all_cells, quick_cells
from tests.worlds import run_world

QUICK = {cell.name: cell for cell in quick_cells()}
WHOLE = {cell.name: cell for cell in all_cells()}


@cache
def quick_verdicts(processes: int) -> dict[str, Verdict]:
    return verdicts_on([cell for cell in QUICK.values() if cell.processes == processes])


@cache
def whole_verdicts() -> dict[str, Verdict]:
    return verdicts_on(list(WHOLE.values()))


def verdicts_on(cells: list[Cell]) -> dict[str, Verdict]:
    return {cell.name: verdict for cell, verdict in zip(cells, run_cells(cells, timeout=3000), strict=True)}


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", QUICK)
def test_a_layout_gives_the_run_of_one_process(name: str, request: pytest.FixtureRequest) -> None:
    is_in_whole = request.config.getoption("--update-matrix")
    verdict = (whole_verdicts() if is_in_whole else quick_verdicts(QUICK[name].processes))[name]
    assert not verdict.red, (verdict.where, verdict.deviations)


@pytest.mark.parametrize("name", ["one process", *(name for name in QUICK if "clipping" not in name)])
def test_references_are_clipped_where_they_are_meant_to_be(name: str) -> None:
    cell = WHOLE.get(name, Cell())
    assert min(reference(cell).norms) > 1.5 * cell.clipping


def test_documents_and_dropout_under_zero_3_are_no_reason_for_a_warning(capfd: pytest.CaptureFixture[str]) -> None:
    run_cells([Cell(zero=3, mask="documents", dropout=0.2, blocks=2)])
    assert capfd.readouterr() == ("", "")


def test_a_cell_leaves_no_process_group_behind() -> None:
    grids = (Grid(data=2), Grid(pipe=2), Grid(pipe=2), Grid(data=2))
    cells = [Cell(grid, blocks=2, tied=True) for grid in grids]
    for parts in run_world(2, run_on_rank, [Job(cell, reference(cell)) for cell in cells]):
        first, second, *others = (part.groups for part in parts)
        assert first < second
        assert set(others) == {second}


@pytest.mark.matrix
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", WHOLE)
def test_every_cell_gives_the_run_of_one_process(name: str) -> None:
    verdict = whole_verdicts()[name]
    assert not verdict.red, (verdict.where, verdict.deviations)


@pytest.mark.matrix
def test_results_are_written_when_asked_for(request: pytest.FixtureRequest) -> None:
    """`--update-matrix`, as `make matrix` says it."""
    verdicts = whole_verdicts()
    if request.config.getoption("--update-matrix"):
        write({WHOLE[name]: verdict for name, verdict in verdicts.items()}, list(BY_NAME))


def test_the_readme_and_the_results_speak_of_these_cells() -> None:
    """After a change of the cells, `make matrix` writes both anew."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    expected = table(list(WHOLE.values()), results, len(BY_NAME))
    assert without_deviations(written_table()) == without_deviations(expected)
    assert results["cells"] == len(WHOLE) >= 150
    assert results["red"] == []
    assert results["mutations"] == list(BY_NAME)


def test_a_table_of_other_cells_would_be_noticed_and_other_digits_not() -> None:
    cells, results = list(WHOLE.values()), json.loads(RESULTS.read_text(encoding="utf-8"))
    written = without_deviations(table(cells, results, len(BY_NAME)))
    assert without_deviations(table(cells[1:], results, len(BY_NAME))) != written
    assert without_deviations(table(cells, results, len(BY_NAME) + 1)) != written
    other = {name: {column: value * 3 for column, value in row.items()} for name, row in results["layouts"].items()}
    assert without_deviations(table(cells, {**results, "layouts": other}, len(BY_NAME))) == written
