"""Failing runs are told with their own words."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron.cli.parity_runs import TOLD, read_metrics, run_both
from megatron.errors import LaunchError


def test_a_run_that_fails_is_told_with_its_error(tmp_path: Path) -> None:
    for name, text in (("layout", "num_layers: two\n"), ("one_process", "num_layers: 2\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yml").write_text(text)
    with pytest.raises(LaunchError, match=r'failed with exit status 1:\nerror: "') as caught:
        run_both(tmp_path / "layout", tmp_path / "one_process")
    assert str(caught.value).startswith("the run in ")
    assert len(str(caught.value).splitlines()) <= TOLD + 1


def test_records_are_read_in_full(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "metrics.jsonl").write_text('{"iteration": 1, "loss": 6.123456789012345}\n{"iteration": 2}\n')
    assert read_metrics(tmp_path) == [{"iteration": 1, "loss": 6.123456789012345}, {"iteration": 2}]
