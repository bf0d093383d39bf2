"""A run whose loss is no number is given up: at once when the weights are spoiled, soon when every step is skipped."""

from __future__ import annotations

import math

import pytest

from megatron.engine.protocol import StepResult
from megatron.errors import NeoXError
from megatron.training.guards.divergence import PATIENCE, SKIPPED_LIMIT, DivergenceGuard


def result(loss: float, *, skipped: bool = False) -> StepResult:
    return StepResult(loss=loss, grad_norm=None, lr=0.1, loss_scale=1.0, skipped=skipped)


def test_a_step_with_a_loss_that_is_no_number_ends_the_run() -> None:
    with pytest.raises(NeoXError, match="the loss of iteration 7 is nan: the run has diverged"):
        DivergenceGuard().check(7, result(math.nan))


def test_skipped_steps_are_forgiven_until_there_are_too_many_in_a_row() -> None:
    guard = DivergenceGuard()
    for iteration in range(1, PATIENCE):
        guard.check(iteration, result(math.inf, skipped=True))
    guard.check(PATIENCE, result(3.0))
    for iteration in range(1, PATIENCE):
        guard.check(iteration, result(math.nan, skipped=True))
    with pytest.raises(NeoXError, match=f"the loss of the last {PATIENCE} iterations was nan"):
        guard.check(PATIENCE, result(math.nan, skipped=True))


def test_overflowing_gradients_alone_are_the_loss_scale_s_business() -> None:
    guard = DivergenceGuard()
    for iteration in range(1, 3 * PATIENCE):
        guard.check(iteration, result(2.5, skipped=True))


def test_a_run_that_skips_every_step_is_given_up() -> None:
    guard = DivergenceGuard()
    guard.check(1, result(2.5, skipped=True))
    guard.check(2, result(2.5))
    for iteration in range(3, 2 + SKIPPED_LIMIT):
        guard.check(iteration, result(2.5, skipped=True))
    with pytest.raises(NeoXError, match=f"skipped the last {SKIPPED_LIMIT} steps"):
        guard.check(2 + SKIPPED_LIMIT, result(2.5, skipped=True))
