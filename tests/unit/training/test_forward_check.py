"""What is said of two forward passes; that they are the same in every layout is tested with real engines elsewhere."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from megatron.errors import CheckpointError
from megatron.mpu.groups import SINGLE
from megatron.training.forward_check import FILE, ForwardPass, check_forward_pass, made_up_text, read_forward_pass

THEN = ForwardPass(vocab_size=100, seq_length=16, precision="fp32", losses=(4.0, 5.0, 6.0, 7.0))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    (tmp_path / FILE).write_bytes(THEN.content())
    return tmp_path


def test_what_is_kept_is_read_back_to_the_bit(tmp_path: Path) -> None:
    kept = replace(THEN, losses=(0.1 + 0.2, 1 / 3, float("inf"), 5e-324))
    (tmp_path / FILE).write_bytes(kept.content())
    assert read_forward_pass(tmp_path) == kept


def test_rounding_passes_and_more_is_an_error_with_both_numbers(checkpoint: Path) -> None:
    check_forward_pass(checkpoint, replace(THEN, losses=(4.0, 5.00001, 6.0, 7.0)), SINGLE)
    moved = replace(THEN, losses=(4.0, 5.001, 6.0, 7.0))
    with pytest.raises(CheckpointError, match=r"was 5 and is 5\.001, further apart than rounding"):
        check_forward_pass(checkpoint, moved, SINGLE)
    check_forward_pass(checkpoint, replace(moved, precision="bfloat16"), SINGLE)  # which rounds more
    with pytest.raises(CheckpointError, match=r"was 6 and is nan"):
        check_forward_pass(checkpoint, replace(THEN, losses=(4.0, 5.0, float("nan"), 7.0)), SINGLE)


def test_what_cannot_be_compared_is_a_warning(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        check_forward_pass(tmp_path / "none", THEN, SINGLE)
        check_forward_pass(checkpoint, replace(THEN, seq_length=32), SINGLE)
    assert "it was saved without forward_pass.json" in caplog.messages[0]
    assert "had seq_length 16 and a vocabulary of 100, and this run has 32 and 100" in caplog.messages[1]
    (checkpoint / FILE).write_text("{}")
    with pytest.raises(CheckpointError, match=r"forward_pass.json cannot be read \(KeyError"):
        check_forward_pass(checkpoint, THEN, SINGLE)


def test_the_text_depends_on_vocabulary_and_length_alone_and_differs_from_pass_to_pass() -> None:
    first = made_up_text(0, vocab_size=100, length=16)
    assert first.shape == (17,)
    assert 0 <= int(first.min()) <= int(first.max()) < 100
    assert first.equal(made_up_text(0, vocab_size=100, length=16))
    assert not first.equal(made_up_text(1, vocab_size=100, length=16))
