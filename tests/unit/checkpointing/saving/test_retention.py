"""Which checkpoints are let go."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from megatron.checkpointing.layout import find_checkpoint, list_checkpoints
from megatron.checkpointing.saving.retention import prune_checkpoints, superseded
from megatron.checkpointing.saving.save import save_checkpoint
from megatron.mpu.groups import Group
from tests.unit.checkpointing.fakes import fake_engine


def iterations(directory: Path) -> list[int]:
    return [found.iteration for found in list_checkpoints(directory)]


def test_the_newest_and_the_latest_stay_whatever_is_asked() -> None:
    for size, keep_last, latest in itertools.product(range(5), range(-1, 6), (None, 0, 1, 3, 9)):
        complete = list(range(size))
        gone = superseded(complete, keep_last=keep_last, latest=latest)
        kept = [iteration for iteration in complete if iteration not in gone]
        assert latest not in gone
        assert set(complete[-max(keep_last, 1) :]) <= set(kept)
        assert len(kept) <= max(keep_last, 1) + 1
        assert gone == sorted(gone)


def test_the_last_n_stay(tmp_path: Path) -> None:
    for iteration in (5, 10, 100):
        save_checkpoint(tmp_path, fake_engine(), iteration=iteration, run_state={})
    assert prune_checkpoints(tmp_path, keep_last=2) == [tmp_path / "global_step5"]
    assert iterations(tmp_path) == [10, 100]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["global_step10", "global_step100", "latest"]


def test_the_only_good_checkpoint_stays_when_newer_ones_are_damaged(tmp_path: Path) -> None:
    for iteration in (1, 2, 3):
        save_checkpoint(tmp_path, fake_engine(), iteration=iteration, run_state={})
    for iteration in (2, 3):
        (tmp_path / f"global_step{iteration}" / ".metadata").unlink()
    assert prune_checkpoints(tmp_path, keep_last=1) == []
    assert iterations(tmp_path) == [1]
    assert find_checkpoint(tmp_path) == tmp_path / "global_step1"


def test_the_one_that_latest_names_stays(tmp_path: Path) -> None:
    for iteration in (1, 2, 3):
        save_checkpoint(tmp_path, fake_engine(), iteration=iteration, run_state={})
    (tmp_path / "latest").write_text("global_step1")
    prune_checkpoints(tmp_path, keep_last=1)
    assert iterations(tmp_path) == [1, 3]


def test_only_the_first_rank_deletes(tmp_path: Path) -> None:
    for iteration in (1, 2):
        save_checkpoint(tmp_path, fake_engine(), iteration=iteration, run_state={})
    assert prune_checkpoints(tmp_path, keep_last=1, group=Group(rank=1, size=2, ranks=(0, 1))) == []
    assert iterations(tmp_path) == [1, 2]


def test_what_must_stay_stays_whatever_its_age(tmp_path: Path) -> None:
    for iteration in (1, 2, 3):
        save_checkpoint(tmp_path, fake_engine(), iteration=iteration, run_state={})
    prune_checkpoints(tmp_path, keep_last=1, keep=[1])
    assert iterations(tmp_path) == [1, 3]
    prune_checkpoints(tmp_path, keep_last=1)
    assert iterations(tmp_path) == [3]


def test_with_full_verification_the_only_good_one_stays_although_newer_ones_look_complete(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for iteration in (1, 2, 3):
        save_checkpoint(tmp_path, fake_engine(), iteration=iteration, run_state={})
    path = tmp_path / "global_step3" / "__0_0.distcp"
    path.write_bytes(b"\x17" * path.stat().st_size)
    assert prune_checkpoints(tmp_path, keep_last=1, verification="full") == []
    assert "none of those that would stay is good: global_step3" in caplog.text
    assert prune_checkpoints(tmp_path, keep_last=2, verification="full") == [tmp_path / "global_step1"]
    assert find_checkpoint(tmp_path, iteration=2) == tmp_path / "global_step2"
