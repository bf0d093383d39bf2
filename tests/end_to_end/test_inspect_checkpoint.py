"""tools/ckpts/inspect_checkpoint.py as a user runs it: what it prints, its exit status, and what it does without."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.unit.checkpointing.inspecting.saved import random_values, save_run

TOOL = REPOSITORY / "tools" / "ckpts" / "inspect_checkpoint.py"
RUNNER = f"""
import runpy, sys
try:
    runpy.run_path({str(TOOL)!r}, run_name="__main__")
finally:
    print(*(name for name in ("torch", "deepspeed") if name in sys.modules), file=sys.stderr)
"""


def inspect(*words: object) -> tuple[int, str, str]:
    """Exit status, output, and what it said besides; the last line of the latter names the large libraries that were loaded."""
    command = [sys.executable, "-c", RUNNER, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, cwd=REPOSITORY)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two directories of checkpoints, a and b."""
    directory = tmp_path_factory.mktemp("runs")
    save_run(directory / "a")
    save_run(directory / "b", random_values(1))
    return directory


def test_without_values_it_is_at_once(runs: Path) -> None:
    status, said, loaded = inspect(runs / "a", "--no-values")
    assert (status, loaded) == (0, "\n")
    assert "└─ 10.norm.scale" in said


def test_a_difference_is_shown_and_fails_without_deepspeed(runs: Path) -> None:
    status, said, loaded = inspect("--compare", runs / "a", runs / "b")
    assert (status, loaded) == (1, "torch\n")
    assert said.splitlines()[-1].startswith("different: the largest relative deviation is ")
