"""A rank that hangs leaves its reason to the launcher, which may start the ranks again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from megatron.launcher.failure import read_error_record
from tests.conftest import REPOSITORY


def test_a_hang_is_an_error_of_ours_that_need_not_come_again(tmp_path: Path) -> None:
    code = "from megatron.training.guards.last_words import exit_with; exit_with('the run hangs')"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={"TORCHELASTIC_ERROR_FILE": str(tmp_path / "record")},
        timeout=60,
        check=False,
    )
    record = read_error_record(tmp_path / "record")
    assert ended.returncode == 1
    assert record is not None
    assert (record.text, record.expected, record.may_pass) == ("the run hangs", True, True)
