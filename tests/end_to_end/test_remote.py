"""A run (of forked ranks) whose checkpoints lie in S3 (moto's server), and one through `deepy.py` that goes on from them and uploads its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron.checkpointing.digest import logical_sha256
from megatron.checkpointing.layout import list_checkpoints, read_latest
from megatron.checkpointing.places import place
from tests.end_to_end.forked import train_forked
from tests.end_to_end.runs import ON_CPU, run_deepy, write_config
from tests.object_store import object_store

SETTINGS = {"train_iters": 8, "num_gpus": 2, "checkpoint_factor": 2, "keep_last_n_checkpoints": 2}


def test_a_run_saves_to_a_store_and_another_goes_on_from_there_and_uploads(
    tmp_path: Path, small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with object_store() as store:
        first, second = store.directory(), store.directory()
        environment = {**ON_CPU, **store.environment}
        with monkeypatch.context() as patched:
            for name, value in store.environment.items():
                patched.setenv(name, value)
            run = train_forked(tmp_path / "first", small_data, **SETTINGS, save=first, load=first, exit_interval=4)
        assert f"saved {first}/global_step4" in run.printed
        assert [found.iteration for found in list_checkpoints(first)] == [2, 4]
        assert read_latest(place(first)) == 4

        local = tmp_path / "second" / "checkpoints"
        config = write_config(
            tmp_path / "second", small_data, **SETTINGS, save=str(local), load=first, s3_path=second, async_save=True
        )
        run = run_deepy(tmp_path / "second", "train.py", config, environment=environment)
        assert run.exit_code == 0, run.printed
        assert sorted(run.steps) == [5, 6, 7, 8]
        assert f"uploaded {second}/global_step8" in run.printed
        assert [found.iteration for found in list_checkpoints(second)] == [6, 8]
        assert logical_sha256(place(f"{second}/global_step8")) == logical_sha256(local / "global_step8")
