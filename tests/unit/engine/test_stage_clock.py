"""The time of a stage: its passes alone, and from the begin of the step to the end of the last of them."""

from __future__ import annotations

import pytest
import torch

from megatron.engine.stage_clock import StageClock, StageTime


def test_passes_are_added_up_and_waiting_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("megatron.engine.stage_clock.time.perf_counter", lambda: now[0])
    clock = StageClock(torch.device("cpu"))

    def compute(seconds: float) -> None:
        now[0] += seconds

    timed = clock.timed(compute)
    timed(7.0)  # in a step that is not timed
    for _ in range(2):  # nothing of the first is left in the second
        clock.start()
        compute(1.0)
        timed(2.0)
        compute(4.0)
        timed(8.0)
        compute(16.0)
        assert clock.read() == StageTime(busy=10.0, span=15.0)
    timed(7.0)
    clock.start()
    assert clock.read() == StageTime(0.0, 0.0)
