"""Learning rates at every iteration."""

from __future__ import annotations

import math

import pytest

from megatron.neox_arguments import NeoXArgs
from megatron.optim.lr_schedules import learning_rate
from tests.toy_model import TOY_CONFIG


def args_of(style: str, **config: object) -> NeoXArgs:
    optimizer = {"type": "Adam", "params": {"lr": 1.0}}
    values = {**TOY_CONFIG, "train_iters": 100, "warmup": 0.1, "optimizer": optimizer}
    return NeoXArgs.from_dict({"lr_decay_style": style, **values, **config})


@pytest.mark.parametrize("style", ["constant", "linear", "cosine", "exponential"])
def test_warm_up_is_linear_and_its_first_two_steps_are_the_same(style: str) -> None:
    args = args_of(style, min_lr=0.5)
    rates = [learning_rate(args, iteration) for iteration in range(11)]
    assert rates == pytest.approx([0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])


@pytest.mark.parametrize(
    ("style", "halfway", "end"),
    [
        ("constant", 1.0, 1.0),
        ("linear", 0.5, 0.0),
        ("cosine", 0.5, 0.0),
        ("exponential", math.exp(-0.3465), math.exp(-0.693)),
    ],
)
def test_decay_runs_from_the_end_of_warm_up_to_the_last_decay_step_and_then_stays(
    style: str, halfway: float, end: float
) -> None:
    args = args_of(style)
    assert learning_rate(args, 55) == pytest.approx(halfway)
    assert learning_rate(args, 100) == pytest.approx(end, abs=1e-12)
    assert learning_rate(args, 150) == pytest.approx(end, abs=1e-12)


def test_the_rate_never_falls_below_the_minimum_after_warm_up() -> None:
    assert learning_rate(args_of("linear", min_lr=0.2), 99) == 0.2
    assert learning_rate(args_of("exponential", min_lr=0.6), 100) == 0.6
    assert learning_rate(args_of("cosine", min_lr=0.2), 55) == pytest.approx(0.6)


def test_warm_up_steps_are_not_rounded() -> None:
    args = args_of("constant", train_iters=25)  # 2.5 steps of warm-up
    assert [learning_rate(args, iteration) for iteration in range(4)] == pytest.approx([0.4, 0.4, 0.8, 1.0])


def test_less_than_a_step_of_warm_up_does_not_exceed_the_peak() -> None:
    assert learning_rate(args_of("constant", train_iters=2), 0) == 1.0


def test_without_warm_up_decay_starts_at_the_first_step() -> None:
    assert [learning_rate(args_of("linear", warmup=0.0), n) for n in (0, 1, 50)] == pytest.approx([1.0, 0.99, 0.5])


def test_decay_steps_may_differ_from_the_length_of_the_run() -> None:
    args = args_of("linear", warmup=0.0, lr_decay_iters=50)
    assert learning_rate(args, 25) == pytest.approx(0.5)


def test_warm_up_through_the_whole_decay_ends_at_the_peak() -> None:
    args = args_of("linear", warmup=1.0)
    assert learning_rate(args, 100) == pytest.approx(1.0)
