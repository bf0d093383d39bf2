"""The file of samples holds whole lines of valid JSON, and an earlier one stays until there is something to write."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron.errors import DataError
from megatron.generation.rows import Completion
from megatron.generation.samples import SampleFile

STRANGE = Completion(
    (5, 6),
    tokens=[1, 2, 3],
    text='"\n\u2028\ud800',
    log_probabilities=[-0.5, math.nan, -math.inf],
    finish_reason="stop",
    logits=[torch.tensor([0.25, -math.inf])],
    prompt="said\n",
)


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def records(path: Path) -> list[dict[str, Any]]:
    lines = path.read_bytes().decode("utf-8").split("\n")
    assert lines.pop() == ""
    return [json.loads(line, parse_constant=refuse_constant) for line in lines]


def test_a_record_says_all_and_is_valid_json(tmp_path: Path) -> None:
    SampleFile(tmp_path / "samples.jsonl", with_logits=True).write([STRANGE])
    (record,) = records(tmp_path / "samples.jsonl")
    assert record == {
        "context": "said\n",
        "prompt": "said\n",
        "text": '"\n\u2028?',
        "length": 3,
        "tokens": [1, 2, 3],
        "log_probabilities": [-0.5, None, None],
        "finish_reason": "stop",
        "finished": True,
        "duration_seconds": 0.0,
        "logits": [[0.25, None]],
    }


def test_what_an_earlier_run_wrote_stays_until_there_is_something_to_write(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "samples.jsonl"
    file = SampleFile(path)
    assert not path.exists()
    file.write([STRANGE, STRANGE])
    again = SampleFile(path)
    assert len(records(path)) == 2
    again.write([STRANGE])
    again.write([STRANGE, STRANGE])
    assert len(records(path)) == 3


def test_a_line_that_does_not_fit_on_the_disk_is_taken_back(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "samples.jsonl"
    file = SampleFile(path)
    file.write([STRANGE])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, limits[1]))
    try:
        with pytest.raises(DataError, match=r"samples\.jsonl.*cannot be written"):
            file.write([STRANGE])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(records(path)) == 1


def test_a_place_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "samples.jsonl", tmp_path / ("x" * 300)):
        with pytest.raises(DataError, match=r"sample_output_file.*cannot be written.*give the path of a file"):
            SampleFile(path)
