"""What eval.py writes down is what it measured, and where that cannot be written it says so."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron.checkpointing.loading.load import LoadedCheckpoint
from megatron.errors import DataError
from megatron.evaluation import run
from megatron.evaluation.evaluate import Evaluation
from megatron.initialize import World
from megatron.mpu.groups import single_process_groups
from tests.unit.neox_arguments.minimal import build


@pytest.fixture
def evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the results of a run whose checkpoint is replaced while it is evaluated."""
    manifest = tmp_path / "global_step7" / "manifest.json"
    manifest.parent.mkdir()
    manifest.write_bytes(b"{}")

    def evaluate_tasks(*_: Any, **__: Any) -> Evaluation:
        manifest.write_bytes(b"another")
        return Evaluation({}, {"results": {}})

    loaded = LoadedCheckpoint(7, {}, manifest.parent)
    for name, value in {
        "join_world": World(single_process_groups(), torch.device("cpu")),
        "prepare": None,
        "load_model_and_checkpoint": (None, loaded),
    }.items():
        monkeypatch.setattr(run, name, lambda *_, value=value, **__: value)
    monkeypatch.setattr(run, "configure_logging", lambda rank: None)
    monkeypatch.setattr(run, "evaluate_tasks", evaluate_tasks)
    return tmp_path / "results"


def evaluate(directory: Path) -> None:
    tokenizer = {"tokenizer_type": "CharLevelTokenizer", "vocab_file": None}
    run.evaluate(
        build(load=str(directory.parent), eval_results_prefix=f"{directory}/", eval_tasks=["quiz"], **tokenizer)
    )


def test_the_checkpoint_written_down_is_the_one_that_was_loaded(evaluated: Path) -> None:
    evaluate(evaluated)
    (file,) = evaluated.iterdir()
    assert json.loads(file.read_text())["model"]["manifest_sha256"] == hashlib.sha256(b"{}").hexdigest()


def test_a_full_disk_is_told(evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(run, "write_results", write)
    with pytest.raises(DataError, match=rf"^results cannot be written to {evaluated}/.* \(No space left on device\)"):
        evaluate(evaluated)
