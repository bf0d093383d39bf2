"""A run without DeepSpeed saves, resumes to the bit, goes on with DeepSpeed, and comes back: with everything that looks at it switched on."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.end_to_end.forked import go_on_forked, train_forked
from tests.end_to_end.runs import TrainedRun, write_config

SETTINGS = {
    "train_iters": 9,
    "num_gpus": 2,
    "zero_optimization": {"stage": 1, "reduce_bucket_size": 2000},
    "gradient_accumulation_steps": 2,
    "checkpoint_factor": 3,
    "async_save": True,
    "checkpoint_validation_with_forward_pass": True,
    "check_desync": 2,
    "eval_interval": 3,
    "hidden_dropout": 0.1,
    "log_interval": 1,
}
NATIVE = {**SETTINGS, "deepspeed": False}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, small_data: Path) -> TrainedRun:
    return train_forked(tmp_path_factory.mktemp("unbroken") / "run", small_data, **NATIVE)


def from_iteration(iteration: int, unbroken: TrainedRun, directory: Path, data: Path, **changes: object) -> TrainedRun:
    """The run gone on with from one of its checkpoints, in a directory of its own."""
    shutil.copytree(unbroken.directory, directory)
    for later in (directory / "checkpoints").glob("global_step*"):
        if int(later.name.removeprefix("global_step")) > iteration:
            shutil.rmtree(later)
    (directory / "checkpoints" / "latest").write_text(f"global_step{iteration}")
    return go_on_forked(directory, write_config(directory, data, **{**NATIVE, **changes}))


def test_it_says_what_it_runs(unbroken: TrainedRun) -> None:
    assert "ZeRO stage 1, fp32" in unbroken.printed
    assert len(unbroken.losses) == 9
    assert len(re.findall("validation", unbroken.printed)) >= 3


def test_it_resumes_to_the_bit(unbroken: TrainedRun, tmp_path: Path, small_data: Path) -> None:
    resumed = from_iteration(3, unbroken, tmp_path / "run", small_data)
    assert "continuing after iteration 3" in resumed.printed
    assert resumed.losses == unbroken.losses


def test_it_goes_on_with_deepspeed_and_comes_back(unbroken: TrainedRun, tmp_path: Path, small_data: Path) -> None:
    with_deepspeed = from_iteration(3, unbroken, tmp_path / "there", small_data, deepspeed=True)
    assert "continuing after iteration 3" in with_deepspeed.printed
    assert with_deepspeed.losses == pytest.approx(unbroken.losses, rel=5e-6)
    back = from_iteration(6, with_deepspeed, tmp_path / "back", small_data, model_parallel_size=2)
    assert "continuing after iteration 6" in back.printed
    assert back.losses == pytest.approx(unbroken.losses, rel=5e-6)
