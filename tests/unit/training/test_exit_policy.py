"""A run ends at its last iteration, at exit_interval, or at a polite signal."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from megatron.mpu.groups import SINGLE
from megatron.training.exit_policy import POLITE_SIGNALS, ExitPolicy
from megatron.training.state import TrainState


@pytest.fixture(autouse=True)
def _handlers_are_put_back() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in POLITE_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_last_iteration_ends_the_run() -> None:
    policy = ExitPolicy(train_iters=5, exit_interval=None, world=SINGLE)
    assert not policy.reached(TrainState(iteration=4))
    assert policy.reached(TrainState(iteration=5))
    assert policy.reason == "the last iteration is done"


def test_exit_interval_ends_the_run_after_progress_only() -> None:
    policy = ExitPolicy(train_iters=100, exit_interval=10, world=SINGLE)
    assert not policy.reached(TrainState(iteration=10)), "resuming at a multiple must go on"
    assert not policy.reached(TrainState(iteration=19))
    assert policy.reached(TrainState(iteration=20))


@pytest.mark.parametrize("number", POLITE_SIGNALS)
def test_a_polite_signal_ends_the_run_before_the_next_step(number: signal.Signals) -> None:
    policy = ExitPolicy(train_iters=100, exit_interval=None, world=SINGLE)
    policy.listen()
    assert not policy.reached(TrainState())
    os.kill(os.getpid(), number)
    os.kill(os.getpid(), number)  # a repeat must not kill the process
    assert policy.reached(TrainState(iteration=1))
    assert number.name in policy.reason
