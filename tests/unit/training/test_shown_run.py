"""The samples of a run can be looked at by part and number, without training."""

from __future__ import annotations

from pathlib import Path

import pytest

from megatron.errors import DataError
from megatron.tokenizer.char_level import CharLevelTokenizer
from megatron.training.shown_run import open_run
from megatron.training.state import TrainState
from tests.unit.training.test_batches import arguments, batches_of, data

__all__ = ["data"]


def test_samples_are_those_that_training_reads(data: Path) -> None:
    changes = {"split": "80,20,0", "eval_iters": 1, "eod_mask_loss": True, "reset_position_ids": True}
    args = arguments(data, **changes)
    run = open_run(args, CharLevelTokenizer())
    first = batches_of(args, TrainState())[0]
    for row, view in enumerate(run.views("train", range(len(first.tokens)))):
        assert [token.number for token in view.tokens[:-1]] == first.tokens[row].tolist()
        assert [token.position for token in view.tokens[:-1]] == first.position_ids[row].tolist()
        assert [token.mark == "+" for token in view.tokens[1:]] == first.loss_mask[row].bool().tolist()
    (view,) = run.views("validation", [0])
    assert view.title == "validation sample 0"
    assert all(token.number < 100 for token in view.tokens)


def test_parts_and_samples_that_are_not_there_are_named(data: Path) -> None:
    run = open_run(arguments(data), CharLevelTokenizer())
    with pytest.raises(DataError, match='the run reads no "validation" samples: choose one of train'):
        list(run.views("validation", [0]))
    with pytest.raises(DataError, match="there is no train sample 9999: there are 249 of them"):
        list(run.views("train", [9999]))
