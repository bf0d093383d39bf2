"""Runs with metrics at Weights & Biases and Comet, both offline: what ends up on disk however a run ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.runs import ON_CPU, TrainedRun, run_deepy, start_deepy, write_config
from tests.end_to_end.test_resume import wait_for_iteration
from tests.unit.monitor.writers.recordings import Recording, comet_recordings, wandb_recordings

ITERATIONS = 12


def offline(directory: Path) -> dict[str, str]:
    """Variables that keep both services away from the network and the home directory."""
    folders = dict.fromkeys(("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"), str(directory / "home"))
    return {**ON_CPU, **folders, "WANDB_MODE": "offline", "COMET_START_ONLINE": "false"}


def losses(recording: Recording) -> dict[int, float]:
    return {step: values["train/loss"] for step, values in recording.metrics.items()}


def test_a_stopped_run_goes_on_as_the_same_run_of_every_rank(tmp_path: Path, small_data: Path) -> None:
    pytest.importorskip("wandb")
    services = {"use_wandb": True, "wandb_init_all_ranks": True, "wandb_group": "g"}
    config = write_config(tmp_path / "run", small_data, train_iters=ITERATIONS, num_gpus=2, **services)
    process = start_deepy("train.py", config, environment=offline(tmp_path))
    wait_for_iteration(tmp_path / "run", 3, process)
    process.terminate()
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 75, printed
    stopped_after = len(TrainedRun(tmp_path / "run", 0, printed).losses)
    resumed = run_deepy(tmp_path / "run", "train.py", config, environment=offline(tmp_path))
    assert resumed.exit_code == 0, resumed.printed

    recordings = wandb_recordings(tmp_path / "run" / "logs")
    assert [recording.exit_code for recording in recordings] == [0, 0, 0, 0]
    expected = dict(enumerate(resumed.losses, start=1))
    ids = {(tmp_path / "run" / "checkpoints" / f"wandb_run_id{end}").read_text().strip() for end in ("", ".rank1")}
    assert len(ids) == 2
    for id in ids:
        before, after = (recording for recording in recordings if recording.id == id)
        assert list(losses(before)) == list(range(1, stopped_after + 1))
        assert {**losses(before), **losses(after)} == expected


def test_a_run_that_fails_is_finished_as_failed(tmp_path: Path, small_data: Path) -> None:
    pytest.importorskip("wandb")
    pytest.importorskip("comet_ml")
    optimizer = {"type": "Adam", "params": {"lr": 1e30}}
    services = {"use_wandb": True, "use_comet": True, "comet_project": "p"}
    config = write_config(tmp_path, small_data, train_iters=ITERATIONS, optimizer=optimizer, warmup=0.0, **services)
    run = run_deepy(tmp_path, "train.py", config, environment=offline(tmp_path))
    assert run.exit_code == 1, run.printed
    assert "error:" in run.printed
    (wandb,) = wandb_recordings(tmp_path / "logs")
    (comet,) = comet_recordings(tmp_path / "logs" / "comet")
    assert (wandb.exit_code, comet.others["exit_code"]) == (1, 1)
    assert losses(wandb)[1] == losses(comet)[1] == run.losses[0]  # the later ones are no numbers
    assert list(losses(wandb)) == list(losses(comet)) == sorted(run.steps)
