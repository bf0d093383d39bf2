"""metrics.jsonl keeps every finished step and stays readable after any end."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from megatron.errors import NeoXError
from megatron.monitor.writers.jsonl import JsonlWriter


def arguments(directory: Path) -> Any:
    return SimpleNamespace(log_dir=str(directory / "logs"))


def lines(directory: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (directory / "logs" / "metrics.jsonl").read_text().splitlines()]


def test_each_record_is_one_line_on_disk_at_once(tmp_path: Path) -> None:
    writer = JsonlWriter(arguments(tmp_path))
    writer.write(1, {"loss": 2.5, "skipped": False})
    assert lines(tmp_path) == [{"iteration": 1, "loss": 2.5, "skipped": False}]


def test_a_second_run_appends(tmp_path: Path) -> None:
    for iteration in (1, 2):
        writer = JsonlWriter(arguments(tmp_path))
        writer.write(iteration, {"loss": 1.0})
        writer.close()
    assert [line["iteration"] for line in lines(tmp_path)] == [1, 2]


@pytest.mark.parametrize("half", ["", "{", '{"iteration": 2, "lo', '{"text": "' + 200_000 * "a"])
def test_half_a_line_of_a_killed_run_is_cut_off(tmp_path: Path, half: str) -> None:
    for whole in ("", '{"iteration": 1}\n'):
        writer = JsonlWriter(arguments(tmp_path))
        writer.close()
        writer.path.write_text(whole + half)
        writer = JsonlWriter(arguments(tmp_path))
        writer.write(2, {"loss": 1.0})
        assert lines(tmp_path) == [*map(json.loads, whole.splitlines()), {"iteration": 2, "loss": 1.0}]


def test_numbers_that_json_lacks_are_kept_as_words(tmp_path: Path) -> None:
    JsonlWriter(arguments(tmp_path)).write(1, {"loss": float("inf"), "grad_norm": float("nan")})
    assert lines(tmp_path) == [{"iteration": 1, "loss": "inf", "grad_norm": "nan"}]


def test_a_log_dir_that_cannot_be_a_directory_is_a_sentence_with_the_key(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("")
    with pytest.raises(NeoXError, match=r'"log_dir" is ".*logs", and nothing can be written there \(.*File exists'):
        JsonlWriter(arguments(tmp_path))
