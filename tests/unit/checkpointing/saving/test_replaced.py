"""What a run would replace where it saves is said at its start; what GPT-NeoX saved is never replaced."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from megatron.checkpointing.layout import read_latest
from megatron.checkpointing.saving.replaced import check_what_is_replaced
from megatron.checkpointing.saving.retention import prune_checkpoints
from megatron.checkpointing.saving.save import save_checkpoint
from megatron.errors import CheckpointError
from megatron.mpu.groups import SINGLE
from tests.unit.checkpointing.fakes import fake_engine


def neox_step(directory: Path, iteration: int) -> Path:
    step = directory / f"global_step{iteration}"
    step.mkdir(parents=True)
    (step / "mp_rank_00_model_states.pt").write_text("theirs")
    return step


def test_later_checkpoints_of_an_earlier_run_are_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for iteration in (5, 10, 20):
        save_checkpoint(tmp_path, fake_engine(), iteration=iteration, run_state={})
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        check_what_is_replaced(str(tmp_path), iteration=20, began_from=None, group=SINGLE)
        check_what_is_replaced(str(tmp_path / "nowhere"), iteration=0, began_from=None, group=SINGLE)
        for began_from in (5, 10):  # the one that is wanted, or that is left where later ones are damaged
            check_what_is_replaced(
                str(tmp_path), iteration=began_from, began_from=tmp_path / f"global_step{began_from}", group=SINGLE
            )
        assert not caplog.messages
        check_what_is_replaced(str(tmp_path), iteration=5, began_from=Path("other/global_step5"), group=SINGLE)
    (warning,) = caplog.messages
    assert "of later iterations than 5, where this run begins: global_step10, global_step20. It replaces" in warning
    assert f"to go on from them, stop it and set load: {tmp_path}, finetune: false and no iteration" in warning


def test_a_run_that_would_replace_checkpoints_of_gpt_neox_does_not_begin(tmp_path: Path) -> None:
    neox_step(tmp_path, 5)
    neox_step(tmp_path, 10)
    check_what_is_replaced(str(tmp_path), iteration=10, began_from=None, group=SINGLE)
    with pytest.raises(CheckpointError, match=r"later iterations than 5, .* \(global_step10\): .* directory in save$"):
        check_what_is_replaced(str(tmp_path), iteration=5, began_from=None, group=SINGLE)


def test_checkpoints_of_gpt_neox_are_neither_replaced_nor_deleted(tmp_path: Path) -> None:
    theirs = [neox_step(tmp_path, iteration) for iteration in (1, 10, 99)]
    for iteration in (11, 12, 13):
        save_checkpoint(tmp_path, fake_engine(), iteration=iteration, run_state={})
        prune_checkpoints(tmp_path, keep_last=1)
    with pytest.raises(CheckpointError, match=r"global_step99 is a checkpoint of GPT-NeoX, which is not replaced"):
        save_checkpoint(tmp_path, fake_engine(), iteration=99, run_state={})
    left = sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("."))
    assert left == [*(f"global_step{iteration}" for iteration in (1, 10, 13, 99)), "latest"]
    assert all((step / "mp_rank_00_model_states.pt").read_text() == "theirs" for step in theirs)
    assert read_latest(tmp_path) == 13
