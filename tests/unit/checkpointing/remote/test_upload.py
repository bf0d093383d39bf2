"""Uploading a checkpoint that is complete on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron.checkpointing.layout import list_checkpoints, read_latest, write_latest
from megatron.checkpointing.loading.load import load_checkpoint
from megatron.checkpointing.places import place
from megatron.checkpointing.remote.upload import is_uploaded, upload_checkpoint
from megatron.checkpointing.saving.save import save_checkpoint
from megatron.errors import CheckpointError
from megatron.mpu.groups import SINGLE
from tests.unit.checkpointing.fakes import fake_engine, full_values
from tests.unit.checkpointing.remote.conftest import URL, Requests


def saved(directory: Path, *iterations: int) -> list[Path]:
    engine = fake_engine(seed=1).fill(full_values(1))
    return [
        save_checkpoint(directory, engine, iteration=iteration, run_state={}, config_yaml="x: 1\n")
        for iteration in iterations
    ]


def test_an_uploaded_checkpoint_is_the_same_files(requests: Requests, tmp_path: Path) -> None:
    (checkpoint,) = saved(tmp_path / "run", 3)
    there = upload_checkpoint(checkpoint, URL, group=SINGLE, verification="full")
    assert str(there) == f"{URL}/global_step3"
    for path in (path for path in checkpoint.rglob("*") if path.is_file()):
        assert (there / path.relative_to(checkpoint)).read_bytes() == path.read_bytes()
    target = fake_engine(seed=4)
    load_checkpoint(URL, target, verification="full")
    assert target.holds(full_values(1))


def test_the_manifest_is_uploaded_after_all_other_files_and_then_latest(requests: Requests, tmp_path: Path) -> None:
    (checkpoint,) = saved(tmp_path / "run", 3)
    requests.made.clear()
    upload_checkpoint(checkpoint, URL, group=SINGLE)
    written = [key for method, key in requests.made if method in ("pipe_file", "put_file")]
    assert written[-2:] == ["global_step3/manifest.json", "run/latest"]
    assert len(set(written)) == len(written)


def test_latest_there_is_latest_here_in_whatever_order_checkpoints_arrive(requests: Requests, tmp_path: Path) -> None:
    for checkpoint in reversed(saved(tmp_path / "run", 3, 4)):
        upload_checkpoint(checkpoint, URL, group=SINGLE)
    assert [found.iteration for found in list_checkpoints(URL)] == [3, 4]
    assert read_latest(place(URL)) == 4


def test_one_that_is_there_is_known_and_latest_is_put_right(requests: Requests, tmp_path: Path) -> None:
    checkpoint, other = saved(tmp_path / "run", 3, 4)[::-1]
    assert not is_uploaded(checkpoint, URL)
    for each in (other, checkpoint):
        upload_checkpoint(each, URL, group=SINGLE)
    write_latest(place(URL), 3)
    assert is_uploaded(other, URL)
    assert read_latest(place(URL)) == 3
    assert is_uploaded(checkpoint, URL)
    assert read_latest(place(URL)) == 4
    (place(URL) / "global_step4" / "manifest.json").write_bytes(b"{}")
    assert not is_uploaded(checkpoint, URL)


def test_an_upload_that_fails_leaves_nothing_that_counts_and_the_next_one_succeeds(
    requests: Requests, tmp_path: Path
) -> None:
    checkpoint, later = saved(tmp_path / "run", 3, 4)

    def broken(method: str, key: str) -> None:
        if key == "global_step3/state.json":
            raise OSError("503 Slow Down")

    requests.fail = broken
    with pytest.raises(CheckpointError, match=f"^uploading {checkpoint} to {URL} failed: 503 Slow Down"):
        upload_checkpoint(checkpoint, URL, group=SINGLE)
    assert list_checkpoints(URL) == []
    requests.fail = lambda method, key: None
    upload_checkpoint(later, URL, group=SINGLE)
    assert not (place(URL) / "global_step3").exists()
    upload_checkpoint(checkpoint, URL, group=SINGLE)
    assert [found.iteration for found in list_checkpoints(URL)] == [3, 4]


def test_a_directory_is_no_place_to_upload_to(tmp_path: Path) -> None:
    (checkpoint,) = saved(tmp_path / "run", 3)
    with pytest.raises(CheckpointError, match="is no URL"):
        upload_checkpoint(checkpoint, str(tmp_path / "copies"), group=SINGLE)
