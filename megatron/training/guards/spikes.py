"""Spikes of the loss, found and acted upon (`loss_spike`): a warning, a step without its update, or a return to a checkpoint.

A value is a spike when it lies more than `threshold` robust standard deviations above the median of the last `window` values. The
deviation is 1.4826 times the median distance from the median, which outliers do not move (for normal noise it is the standard
deviation), and at least 1 % of the median, so that a flat curve has no spikes. What was seen so far is in the TrainState, and so in
checkpoints: a resumed run decides as the uninterrupted one would.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from megatron.engine.protocol import StepResult
from megatron.errors import NeoXError
from megatron.mpu.collectives import all_reduce_sum
from megatron.mpu.groups import Group
from megatron.neox_arguments.keys.guards import LossSpikeKeys
from megatron.training.state import TrainState

NORMAL_NOISE = 1.4826
"""Standard deviation of normal noise in units of its median distance from the median."""

LEAST_DEVIATION = 0.01
"""Of the median."""


@dataclass(frozen=True)
class Spike:
    """What stood out ("loss" or "gradient norm"), its value, the median of the values before and its score."""

    what: str
    value: float
    median: float
    score: float

    def __str__(self) -> str:
        return (
            f"the {self.what} is {self.value:.4g}, {self.score:.1f} robust standard deviations above {self.median:.4g}"
        )


def find_spike(what: str, value: float, before: Sequence[float], *, window: int, threshold: float) -> Spike | None:
    """The spike that `value` is after the values `before`, if it is one; never while these are less than half a window."""
    if len(before) < window // 2:
        return None
    median = statistics.median(before)
    distance = statistics.median(abs(other - median) for other in before)
    deviation = max(NORMAL_NOISE * distance, LEAST_DEVIATION * abs(median))
    score = (value - median) / deviation if deviation else 0.0
    return Spike(what, value, median, score) if score > threshold else None


class SpikeGuard:
    """Looks at every step, with the same outcome on all ranks of `world`."""

    def __init__(self, rule: LossSpikeKeys, *, world: Group) -> None:
        self.rule = rule
        self._world = world
        self._before = TrainState()
        self._lasts = False

    def begin(self, state: TrainState) -> None:
        """A step begins at this state."""
        self._before = state

    def allows(self, loss: float, grad_norm: float | None) -> bool:
        """Whether to apply the update of the step: the judge of policy `skip` (collective)."""
        return not self._agreed(self._find(loss, grad_norm) is not None)

    def look(self, state: TrainState, result: StepResult) -> tuple[TrainState, Spike | None]:
        """The state to go on with after the step that led to `state`, and the spike to act upon or, once, to tell of (collective).

        Raises NeoXError when the budget is used up.
        """
        if result.skipped:
            return state, None
        spike, warns = self._find(result.loss, result.grad_norm), self.rule.policy == "warn"
        acts = result.withheld or (self.rule.policy == "rollback" and self._agreed(spike is not None))
        if acts:
            spike = spike or Spike("loss", result.loss, result.loss, 0.0)  # only another rank's rounding found it
            self._check_budget(spike)
            return replace(state, spikes_handled=state.spikes_handled + 1), spike
        news, self._lasts = spike if warns and not self._lasts else None, spike is not None
        return remember(state, result, window=self.rule.window), news

    def _find(self, loss: float, grad_norm: float | None) -> Spike | None:
        rule, before = self.rule, self._before
        found = find_spike("loss", loss, before.recent_losses, window=rule.window, threshold=rule.threshold)
        if found is not None or grad_norm is None or rule.grad_norm_threshold is None:
            return found
        norms = before.recent_grad_norms
        return find_spike("gradient norm", grad_norm, norms, window=rule.window, threshold=rule.grad_norm_threshold)

    def _agreed(self, found: bool) -> bool:
        return all_reduce_sum(float(found), self._world) > 0

    def _check_budget(self, spike: Spike) -> None:
        if self._before.spikes_handled >= self.rule.budget:
            raise NeoXError(
                f"{spike}, and the budget of loss_spike, {self.rule.budget}, is used up: the run stops without saving; lower the learning "
                "rate, look at the data, or raise loss_spike.budget"
            )


def remember(state: TrainState, result: StepResult, *, window: int) -> TrainState:
    """The state with what the step measured among the newest `window` values."""
    norms = state.recent_grad_norms + (() if result.grad_norm is None else (result.grad_norm,))
    losses = (*state.recent_losses, result.loss)
    return replace(state, recent_losses=losses[-window:], recent_grad_norms=norms[-window:])
