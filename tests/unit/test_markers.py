"""What `make test` leaves out, another target runs."""

from __future__ import annotations

from tests.conftest import REPOSITORY


def test_make_matrix_runs_every_file_with_its_marker() -> None:
    lines = (REPOSITORY / "Makefile").read_text().partition("\nmatrix:")[2].partition("\n\n")[0]
    named = [REPOSITORY / word for word in lines.split() if word.startswith("tests/")]
    marked = {path for path in (REPOSITORY / "tests").rglob("test_*.py") if "pytest.mark.matrix" in path.read_text()}
    marked.discard(REPOSITORY / "tests" / "unit" / "test_markers.py")
    assert marked
    assert {path for path in marked if not any(path.is_relative_to(each) for each in named)} == set()
