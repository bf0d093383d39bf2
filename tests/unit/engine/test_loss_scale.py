"""The fp16 loss scale around DeepSpeed's scaler."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from megatron.engine.loss_scale import LossScale
from megatron.errors import NeoXError


class Scaler:
    """Doubles after every good step, halves on overflow: the shortest dynamic scale."""

    def __init__(self) -> None:
        self.dynamic = True
        self.cur_scale, self.min_scale = 8.0, 2.0
        self.cur_iter, self.last_overflow_iter, self.cur_hysteresis = 0, -1, 1

    def update_scale(self, overflow: bool) -> None:
        self.cur_scale *= 0.5 if overflow else 2.0
        self.cur_iter += 1


def test_a_raise_waits_for_the_end_of_the_step() -> None:
    scaler = Scaler()
    scale = LossScale(SimpleNamespace(loss_scaler=scaler))
    scaler.update_scale(False)  # what DeepSpeed calls in the middle of its step
    assert scale.value == 8.0
    scale.finish_step()
    assert scale.value == 16.0
    scale.finish_step()
    assert scale.value == 16.0


def test_an_overflow_lowers_the_scale_at_once() -> None:
    scaler = Scaler()
    scale = LossScale(SimpleNamespace(loss_scaler=scaler))
    scaler.update_scale(True)
    assert scale.value == 4.0


def test_an_overflow_at_the_smallest_scale_ends_the_run_with_advice() -> None:
    scaler = Scaler()
    LossScale(SimpleNamespace(loss_scaler=scaler))
    scaler.update_scale(True)
    scaler.update_scale(True)
    with pytest.raises(NeoXError, match="even at the smallest loss scale, 2: training has diverged"):
        scaler.update_scale(True)


def test_state_round_trips_and_is_empty_without_a_dynamic_scale() -> None:
    first, second = Scaler(), Scaler()
    first.cur_scale, first.cur_iter, first.last_overflow_iter, first.cur_hysteresis = 32.0, 7, 3, 2
    state = LossScale(SimpleNamespace(loss_scaler=first)).state()
    LossScale(SimpleNamespace(loss_scaler=second)).load({"optimizer_step": 5, **state})
    assert (second.cur_scale, second.cur_iter, second.last_overflow_iter, second.cur_hysteresis) == (32.0, 7, 3, 2)
    none = LossScale(SimpleNamespace())
    none.load(state)
    assert (none.value, none.state()) == (1.0, {})
