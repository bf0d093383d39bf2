"""Whether a checkpoint will find room, said at the start."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from megatron.checkpointing.saving.room import warn_of_little_room
from megatron.checkpointing.saving.save import save_checkpoint
from tests.unit.checkpointing.fakes import fake_engine

MIB = 2**20
SHAPES = {f"0.weight/{kind}": (MIB,) for kind in ("weight", "exp_avg", "exp_avg_sq")}


@pytest.mark.parametrize(("free", "warned"), [(11 * MIB, True), (13 * MIB, False)])
def test_a_disk_that_is_too_small_is_a_warning_with_both_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, free: int, warned: bool
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    with caplog.at_level(logging.WARNING):
        warn_of_little_room(tmp_path, fake_engine(SHAPES), save_optimizer=True)
        warn_of_little_room(tmp_path, fake_engine(SHAPES), save_optimizer=False)  # 4 MiB
        warn_of_little_room("s3://bucket/run", fake_engine(SHAPES), save_optimizer=True)
    expected = f"a checkpoint takes 12 MiB, and 11 MiB are free in {tmp_path}: free some space, or save elsewhere"
    assert caplog.messages == ([expected] if warned else [])


def test_the_bytes_that_are_told_are_those_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    warn_of_little_room(tmp_path, fake_engine(SHAPES), save_optimizer=True)
    checkpoint = save_checkpoint(tmp_path, fake_engine(SHAPES), iteration=1, run_state={})
    written = sum(path.stat().st_size for path in checkpoint.rglob("*"))
    assert "12 MiB" in caplog.text
    assert 12 * MIB < written < 12.1 * MIB
