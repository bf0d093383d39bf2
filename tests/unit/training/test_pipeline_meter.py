"""How busy the stages of a pipeline are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from megatron.engine.stage_clock import StageClock, StageTime
from megatron.mpu.groups import SINGLE, Group
from megatron.training import pipeline_meter
from megatron.training.pipeline_meter import PipelineMeter, expected_bubble


def test_the_expected_bubble_is_that_of_one_forward_one_backward() -> None:
    assert expected_bubble(1, 4) == 0
    assert expected_bubble(4, 1) == 0.75
    assert expected_bubble(4, 12) == 3 / 15


def test_a_clock_adds_up_the_passes_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = StageClock(torch.device("cpu"))
    times = iter([0.0, 1.0, 3.0, 4.0, 4.5])  # the begin, then two passes
    monkeypatch.setattr("megatron.engine.stage_clock.time.perf_counter", lambda: next(times))
    calls: list[int] = []
    forward = clock.timed(calls.append)
    forward(0)
    clock.start()
    forward(1)
    forward(2)
    assert clock.read() == StageTime(busy=2.5, span=4.5)
    forward(3)
    assert calls == [0, 1, 2, 3]


def test_the_meter_times_the_first_step_and_those_that_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = StageClock(torch.device("cpu"))
    engine: Any = SimpleNamespace(groups=SimpleNamespace(pipe=Group(0, 2, (0, 1))), stage_clock=clock)
    other = StageTime(busy=3.0, span=10.0)
    monkeypatch.setattr(clock, "read", lambda: StageTime(busy=2.0, span=8.0))
    monkeypatch.setattr(pipeline_meter, "all_gather_objects", lambda mine, group: [mine, other])
    meter = PipelineMeter(engine, interval=5)
    timed = []
    for iteration in range(3, 12):
        meter.begin(iteration)
        times = meter.read(micro_batches=4)
        timed += [iteration] if times else []
        if times:
            assert (times.bubble, times.expected, times.stage_seconds) == (0.75, 0.2, (2.0, 3.0))
    assert timed == [3, 5, 10]


def test_without_a_pipeline_nothing_is_timed() -> None:
    engine: Any = SimpleNamespace(groups=SimpleNamespace(pipe=SINGLE), stage_clock=None)
    meter = PipelineMeter(engine, interval=1)
    meter.begin(1)
    assert meter.read(micro_batches=4) is None
