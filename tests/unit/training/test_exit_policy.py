"""A run ends at its last iteration, at exit_interval, when its time is over, at a polite signal, or when a save has failed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from megatron.mpu.groups import SINGLE
from megatron.stopping import POLITE_SIGNALS, STOPPED, PoliteSignals
from megatron.training.exit_policy import ExitPolicy
from megatron.training.state import TrainState


@pytest.fixture(autouse=True)
def _handlers_are_put_back() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in POLITE_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def policy_of(**changes: Any) -> ExitPolicy:
    return ExitPolicy(**{"train_iters": 100, "world": SINGLE, **changes})


def test_the_last_iteration_ends_the_run() -> None:
    policy = policy_of(train_iters=5)
    assert not policy.reached(TrainState(iteration=4))
    assert policy.reached(TrainState(iteration=5))
    assert policy.reason == "the last iteration is done"
    assert policy.exit_status(saves=True) == policy.exit_status(saves=False) == 0


def test_exit_interval_ends_the_run_after_progress_only() -> None:
    policy = policy_of(exit_interval=10)
    assert not policy.reached(TrainState(iteration=10)), "resuming at a multiple must go on"
    assert not policy.reached(TrainState(iteration=19))
    assert policy.reached(TrainState(iteration=20))
    assert policy.exit_status(saves=True) == 0


@pytest.mark.parametrize("number", POLITE_SIGNALS)
def test_a_polite_signal_ends_the_run_before_the_next_step(number: signal.Signals) -> None:
    policy = policy_of()
    policy.listen()
    assert not policy.reached(TrainState())
    os.kill(os.getpid(), number)
    os.kill(os.getpid(), number)  # a repeat must not kill the process
    assert policy.reached(TrainState(iteration=1))
    assert policy.reason == f"stopped by {number.name}"
    assert policy.exit_status(saves=True) == STOPPED == 75
    assert policy.exit_status(saves=False) == 128 + number


def test_a_signal_from_before_training_ends_the_run_before_its_first_step() -> None:
    signals = PoliteSignals()
    signals.note([signal.SIGUSR1])
    os.kill(os.getpid(), signal.SIGUSR1)
    policy = policy_of()
    policy.listen(signals)
    assert policy.reached(TrainState(iteration=7))
    assert policy.exit_status(saves=True) == STOPPED


def test_the_time_of_a_run_ends_it_after_the_step_in_which_it_is_over() -> None:
    minutes = iter([29.0, 30.5])
    policy = policy_of(exit_minutes=30, minutes=lambda: next(minutes))
    assert not policy.reached(TrainState(iteration=8))
    assert policy.reached(TrainState(iteration=9))
    assert policy.reason == "exit_duration_minutes 30 are over"
    assert policy.exit_status(saves=True) == STOPPED


def test_a_save_that_failed_ends_the_run_whatever_else_is_the_case() -> None:
    policy = policy_of(save_failed=lambda: True, exit_minutes=1, minutes=lambda: 2)
    assert policy.reached(TrainState(iteration=8))
    assert policy.reason == "a checkpoint could not be saved"
    assert not policy.cut_short, "the error of the save is what the run ends with"
