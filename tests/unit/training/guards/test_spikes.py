"""Spikes of the loss: what is one, what each policy does about it, and when the run is given up."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from megatron.engine.protocol import StepResult
from megatron.errors import NeoXError
from megatron.mpu.groups import SINGLE
from megatron.neox_arguments.keys.guards import LossSpikeKeys
from megatron.training.guards.spikes import Spike, SpikeGuard, find_spike
from megatron.training.state import TrainState


def rule(policy: str, **changes: Any) -> LossSpikeKeys:
    return LossSpikeKeys.model_validate({"policy": policy, "window": 10, "threshold": 6, **changes})


def result(loss: float, *, norm: float = 1.0, withheld: bool = False, skipped: bool = False) -> StepResult:
    return StepResult(loss, None if skipped else norm, lr=0.1, loss_scale=1.0, skipped=skipped, withheld=withheld)


def run(guard: SpikeGuard, losses: Sequence[float]) -> tuple[TrainState, list[tuple[int, Spike]]]:
    """The state after steps of these losses, asking before each update, and the spikes told by the number of their step."""
    state, told = TrainState(), []
    for loss in losses:
        guard.begin(state)
        withheld = guard.rule.policy == "skip" and not guard.allows(loss, 1.0)
        after = state.advance(samples=1, tokens=1, skipped=False)
        state, spike = guard.look(after, result(loss, withheld=withheld))
        told += [(state.iteration, spike)] if spike else []
    return state, told


CALM = [3.0, 3.1, 2.9, 3.05, 2.95, 3.0, 3.1, 2.9]


def test_a_score_is_in_robust_standard_deviations() -> None:
    before = [1.0, 2.0, 3.0, 4.0, 100.0]
    spike = find_spike("loss", 13.0, before, window=5, threshold=6)
    assert spike is not None
    assert (spike.median, spike.score) == (3.0, pytest.approx(10 / 1.4826))
    assert find_spike("loss", 11.0, before, window=5, threshold=6) is None


def test_normal_noise_and_a_falling_curve_have_no_spikes() -> None:
    noise = random.Random(0)
    curve = [10 / (1 + step / 50) + noise.gauss(0, 0.05) for step in range(500)]
    _, told = run(SpikeGuard(rule("warn", window=100), world=SINGLE), curve)
    assert told == []


def test_a_flat_curve_has_no_spikes_below_one_percent_of_the_median() -> None:
    assert find_spike("loss", 3.1, [3.0] * 10, window=10, threshold=6) is None
    assert find_spike("loss", 3.2, [3.0] * 10, window=10, threshold=6) is not None


def test_nothing_is_a_spike_before_half_a_window_is_known() -> None:
    assert find_spike("loss", 99.0, CALM[:4], window=10, threshold=6) is None
    assert find_spike("loss", 99.0, CALM[:5], window=10, threshold=6) is not None


def test_warn_tells_of_a_lasting_spike_once_and_gets_used_to_it() -> None:
    state, told = run(SpikeGuard(rule("warn"), world=SINGLE), [*CALM, 9.0, 9.1, 9.0, *CALM, *[9.0] * 20])
    assert [iteration for iteration, _ in told] == [9, 20]
    assert state.recent_losses == (9.0,) * 10
    assert state.spikes_handled == 0


def test_skip_refuses_an_update_and_does_not_remember_it() -> None:
    state, told = run(SpikeGuard(rule("skip"), world=SINGLE), [*CALM, 9.0, 3.0])
    assert [iteration for iteration, _ in told] == [9]
    assert state.recent_losses == (*CALM, 3.0)
    assert state.spikes_handled == 1


def test_the_gradient_norm_counts_where_it_is_asked_for() -> None:
    state = TrainState(recent_losses=tuple(CALM), recent_grad_norms=(1.0, 1.1, 0.9, 1.0, 1.05))
    for threshold, allowed in ((None, True), (8, False)):
        guard = SpikeGuard(rule("skip", grad_norm_threshold=threshold), world=SINGLE)
        guard.begin(state)
        assert guard.allows(3.0, 5.0) is allowed


@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_the_budget_ends_the_run(policy: str) -> None:
    guard = SpikeGuard(rule(policy, budget=2), world=SINGLE)
    state, told = run(guard, [*CALM, 9.0, 9.0])
    assert len(told) == state.spikes_handled == 2
    with pytest.raises(NeoXError, match=r"the loss is 9, .* and the budget of loss_spike, 2, is used up"):
        run(guard, [*CALM, 9.0, 9.0, 9.0])


def test_a_step_that_overflowed_is_not_looked_at() -> None:
    guard, state = SpikeGuard(rule("rollback"), world=SINGLE), TrainState(recent_losses=tuple(CALM))
    guard.begin(state)
    assert guard.look(state, result(99.0, skipped=True)) == (state, None)


def test_what_was_seen_survives_a_checkpoint() -> None:
    state = TrainState(iteration=7, spikes_handled=1, recent_losses=(0.1, 2 / 3), recent_grad_norms=(1e-9,))
    assert TrainState.from_dict({**state.to_dict(), "recent_losses": [0.1, 2 / 3]}) == state
