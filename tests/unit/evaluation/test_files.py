"""What is written of an evaluation: where, in which form, and never over what is there."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from megatron.errors import DataError
from megatron.evaluation.files import check_can_write, plain, results_path, write_results, write_samples

NOON = datetime(2026, 3, 1, 12, 0, 5)


@pytest.mark.parametrize(
    ("prefix", "path"),
    [
        ("", "eval_results_2026-03-01-12-00-05.json"),
        ("125M", "125M_eval_results_2026-03-01-12-00-05.json"),
        ("runs/125M", "runs/125M_eval_results_2026-03-01-12-00-05.json"),
        ("runs/", "runs/eval_results_2026-03-01-12-00-05.json"),
    ],
)
def test_results_are_called_by_prefix_and_date(prefix: str, path: str) -> None:
    assert results_path(prefix, NOON) == Path(path)


def test_no_results_are_overwritten(tmp_path: Path) -> None:
    prefix = f"{tmp_path}/"
    first = results_path(prefix, NOON)
    assert first == tmp_path / "eval_results_2026-03-01-12-00-05.json"
    write_results(first, {})
    second = results_path(prefix, NOON)
    assert second == tmp_path / "eval_results_2026-03-01-12-00-05-2.json"
    write_results(second, {})
    assert results_path(prefix, NOON).stem.endswith("-3")
    assert sorted(tmp_path.iterdir()) == sorted([first, second])


def test_folders_are_made_before_anything_runs(tmp_path: Path) -> None:
    check_can_write(str(tmp_path / "a" / "b" / "125M"))
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(
        DataError, match=r'^"eval_results_prefix" is ".*/file/x": .* cannot be written to .*another folder$'
    ):
        check_can_write(str(tmp_path / "file" / "x"))


def test_results_lie_on_this_machine() -> None:
    with pytest.raises(DataError, match=r'^"eval_results_prefix" is "s3://bucket/x": results are written to files of'):
        check_can_write("s3://bucket/x")


def test_everything_that_lm_eval_gives_can_be_written(tmp_path: Path) -> None:
    values = {
        "number": np.float64(0.5),
        "count": np.int64(3),
        "yes": np.bool_(True),
        "lost": float("nan"),
        "perplexity": float("inf"),
        "words": {"b", "a"},
        "pair": (1, None),
        "function": json.dumps,
        "path": Path("x"),
        3: "key",
    }
    path = tmp_path / "results.json"
    write_results(path, values)
    assert json.loads(path.read_text()) == {
        "number": 0.5,
        "count": 3,
        "yes": True,
        "lost": "nan",
        "perplexity": "inf",
        "words": ["a", "b"],
        "pair": [1, None],
        "function": "json.dumps",
        "path": "x",
        "3": "key",
    }


def test_samples_lie_beside_the_results_one_a_line(tmp_path: Path) -> None:
    samples = {"one": [{"doc_id": 0, "text": "Größe"}, {"doc_id": 1}], "two": [{"doc_id": 0, "acc": np.float32(1)}]}
    path = write_samples(tmp_path / "x_eval_results_1.json", samples)
    assert path == tmp_path / "x_eval_results_1_samples.jsonl"
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == [
        {"task": "one", "doc_id": 0, "text": "Größe"},
        {"task": "one", "doc_id": 1},
        {"task": "two", "doc_id": 0, "acc": 1.0},
    ]


def test_numbers_stay_numbers() -> None:
    assert plain(True) is True
    assert plain([np.array(2.5)]) == [2.5]
    assert plain(np.array([1, 2])) == [1, 2]
