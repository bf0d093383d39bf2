"""What the guards are told by the training loop, and pass on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from megatron.mpu.groups import single_process_groups
from megatron.training.guards.guard import Guards
from megatron.training.guards.watchdog import SLOW_FACTOR
from megatron.training.state import TrainState

TIMEOUT = 100.0


def test_evaluating_and_saving_have_more_time_than_steps() -> None:
    args: Any = SimpleNamespace(check_desync=0, loss_spike=None, step_timeout=TIMEOUT)
    engine: Any = SimpleNamespace(groups=single_process_groups())
    reporter: Any = None
    guards, state = Guards(args, engine, reporter), TrainState()
    guards.begin(state)
    guards._watchdog.finish_step()
    guards.begin(state)
    assert guards._watchdog.allowance == TIMEOUT
    with guards.slow(state):
        assert guards._watchdog.allowance == SLOW_FACTOR * TIMEOUT
    assert guards._watchdog.allowance == TIMEOUT
