"""Whose learning rates a run goes on with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from megatron.checkpointing.settings import settings_yaml
from megatron.errors import CheckpointError
from megatron.mpu.groups import SINGLE
from megatron.neox_arguments import NeoXArgs
from megatron.optim.lr_schedules import LearningRates, learning_rate
from megatron.training.resumed_rates import differ, settle_learning_rates
from tests.toy_model import TOY_CONFIG

COSINE = LearningRates(lr=1e-3, lr_decay_style="cosine", lr_decay_iters=100_000, min_lr=1e-4, warmup=0.01)
CONSTANT = replace(COSINE, lr_decay_style="constant", warmup=0.0)
LINEAR = replace(COSINE, lr_decay_style="linear")


@pytest.mark.parametrize(
    ("first", "second", "steps"),
    [
        (COSINE, replace(COSINE, lr=2e-3), range(50_000, 100_000)),
        (COSINE, replace(COSINE, min_lr=0.0), range(50_000, 100_000)),
        (COSINE, replace(COSINE, warmup=0.02), range(50_000, 100_000)),
        (COSINE, LINEAR, range(50_000, 100_000)),
        (COSINE, replace(COSINE, lr_decay_iters=100_001), range(99_990, 100_001)),
        (CONSTANT, replace(CONSTANT, warmup=0.00003), range(3)),
        (CONSTANT, replace(CONSTANT, warmup=0.5), range(49_999, 100_000)),
        (LINEAR, replace(LINEAR, min_lr=2e-4), range(100_000)),
    ],
)
def test_rates_that_differ_in_a_step_to_come_are_found(
    first: LearningRates, second: LearningRates, steps: range
) -> None:
    assert differ(first, second, steps)
    assert differ(second, first, steps)


@pytest.mark.parametrize(
    ("first", "second", "steps"),
    [
        (COSINE, COSINE, range(100_000)),
        (
            CONSTANT,
            replace(CONSTANT, lr_decay_iters=200_000, min_lr=0.0),
            range(200_000),
        ),  # a longer run at the same rate
        (CONSTANT, replace(CONSTANT, warmup=0.5), range(50_000, 100_000)),  # warm-up is over
        (COSINE, replace(COSINE, lr=2e-3), range(0)),  # no step to come
        (LINEAR, replace(LINEAR, lr_decay_iters=99_999), range(100_000, 100_010)),  # both at the floor
    ],
)
def test_rates_that_are_the_same_in_the_steps_to_come_are_no_change(
    first: LearningRates, second: LearningRates, steps: range
) -> None:
    assert not differ(first, second, steps)


def arguments(**changes: object) -> NeoXArgs:
    resumed = {"load": "runs", "load_if_exists": True}
    return NeoXArgs.from_dict({**TOY_CONFIG, **resumed, "lr": 0.01, "lr_decay_style": "cosine", **changes})


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """One of a run of 20 iterations with the learning rate 0.01."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "config.yml").write_text(settings_yaml(arguments()))
    return tmp_path


def settled(checkpoint: Path, **changes: object) -> NeoXArgs:
    return settle_learning_rates(arguments(**changes), checkpoint, SINGLE, iteration=10)


def test_every_value_that_changed_is_named_with_both_ways_out(checkpoint: Path) -> None:
    assert settled(checkpoint) == arguments()
    with pytest.raises(CheckpointError) as caught:
        settled(checkpoint, lr=0.02, lr_decay_style="linear", train_iters=30)
    assert str(caught.value) == (
        f"{checkpoint} was trained with other learning rates than this run would go on with: lr was 0.01 and is 0.02, "
        "lr_decay_style was cosine and is linear, lr_decay_iters was 20 and is 30 (train_iters, as none is given). To go on with "
        "those of this config, set override_lr_scheduler: true; with those of the checkpoint, use_checkpoint_lr_scheduler: true"
    )
    with pytest.raises(CheckpointError, match=r"lr_decay_iters was 20 and is 25\. "):
        settled(checkpoint, lr_decay_iters=25)


def test_a_longer_run_whose_decay_is_as_long_as_before_is_no_change(checkpoint: Path) -> None:
    assert settled(checkpoint, train_iters=30, lr_decay_iters=20).train_iters == 30


def test_each_key_takes_the_rates_it_says(checkpoint: Path) -> None:
    changes = {"lr": 0.02, "warmup": 0.5, "lr_decay_fraction": 0.5, "train_iters": 30}
    own = settled(checkpoint, **changes, override_lr_scheduler=True)
    assert own == arguments(**changes, override_lr_scheduler=True)
    kept = settled(checkpoint, **changes, use_checkpoint_lr_scheduler=True)
    assert kept.train_iters == 30
    assert [learning_rate(kept, step) for step in range(30)] == [learning_rate(arguments(), step) for step in range(30)]
    again = NeoXArgs.from_resolved(kept.to_dict())  # as it is written into the next checkpoint
    assert LearningRates.of(again) == LearningRates.of(arguments())
    assert settled(checkpoint, **changes, no_load_optim=True).lr == 0.02


def test_a_checkpoint_that_does_not_say_is_not_compared(tmp_path: Path) -> None:
    assert settled(tmp_path, lr=0.02).lr == 0.02
    with pytest.raises(
        CheckpointError, match=r"asks for the learning rates of .*config.yml, the configuration of the run, is missing"
    ):
        settled(tmp_path, use_checkpoint_lr_scheduler=True)
