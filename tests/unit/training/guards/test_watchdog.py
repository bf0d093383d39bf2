"""The watchdog: what it lets pass, when it speaks, and how two of them find out about each other."""

from __future__ import annotations

import threading
import time

import pytest
import torch.distributed as dist

from megatron.training.guards import roll_call
from megatron.training.guards.heartbeats import Heartbeats
from megatron.training.guards.watchdog import LONGEST_FACTOR, SLOW_FACTOR, Watchdog


class Reasons:
    """What watchdogs ended runs with."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self._event = threading.Event()

    def __call__(self, reason: str) -> None:
        self.told.append(reason)
        self._event.set()

    def wait(self, seconds: float) -> bool:
        return self._event.wait(seconds)


def working(watchdog: Watchdog, *, steps: int = 2) -> None:
    for step in range(steps):
        watchdog.note(step, 0, f"computing iteration {step + 1}")
        watchdog.finish_step()
    watchdog.note(steps, 0, f"computing iteration {steps + 1}")


def test_a_step_that_takes_too_long_is_told_with_the_stacks(capfd: pytest.CaptureFixture[str]) -> None:
    reasons = Reasons()
    watchdog = Watchdog(timeout=0.3, heartbeats=None, on_stall=reasons)
    with watchdog.watching():
        working(watchdog)
        assert reasons.wait(20)
    (told,) = reasons.told
    assert told.startswith(
        "the run hangs: no step was finished in the time it may take (step_timeout is 0.3 s). This rank has been computing"
    )
    printed = capfd.readouterr().err
    assert "has been computing iteration 3 for" in printed
    assert "test_watchdog.py" in printed  # where the main thread waits


def test_a_run_that_goes_on_is_left_alone() -> None:
    reasons = Reasons()
    watchdog = Watchdog(timeout=1.0, heartbeats=None, on_stall=reasons)
    with watchdog.watching():
        working(watchdog)
        for _ in range(8):
            time.sleep(0.2)
            watchdog.note(3, 0, "computing")
    assert reasons.told == []


def test_a_wait_that_has_a_limit_of_its_own_is_left_alone_as_long_as_it_says_so() -> None:
    reasons = Reasons()
    watchdog = Watchdog(timeout=0.03, heartbeats=None, on_stall=reasons)
    with watchdog.watching():
        working(watchdog)
        watchdog.note(2, 2, "saving", slow=True)
        for _ in range(8):
            time.sleep(0.1)
            watchdog.alive()
        assert reasons.told == []
        assert reasons.wait(20), "and it is ended when it says so no more"


def test_the_first_step_slow_work_and_long_steps_have_more_time() -> None:
    watchdog = Watchdog(timeout=2.0, heartbeats=None)
    assert watchdog.allowance == 2.0 * SLOW_FACTOR
    working(watchdog)
    assert watchdog.allowance == 2.0
    watchdog.note(2, 2, "saving", slow=True)
    assert watchdog.allowance == 2.0 * SLOW_FACTOR
    watchdog.note(2, 0, "computing")
    watchdog._longest = 5.0
    assert watchdog.allowance == 5.0 * LONGEST_FACTOR


def test_without_a_timeout_nobody_watches() -> None:
    before = threading.active_count()
    with Watchdog(timeout=0, heartbeats=None).watching():
        assert threading.active_count() == before


def test_the_rank_that_lags_behind_is_named_by_all() -> None:
    store = dist.HashStore()  # type: ignore[attr-defined]
    reasons = [Reasons(), Reasons()]
    first, second = (
        Watchdog(timeout=0.5, heartbeats=Heartbeats(store, rank=rank, size=2), on_stall=reasons[rank], size=2)
        for rank in range(2)
    )
    with first.watching(), second.watching():
        for watchdog in (first, second):
            working(watchdog)
        first.note(2, 1, "computing iteration 3")
        second.note(2, 0, "reading the batch of iteration 3", slow=True)  # has time left, and hears the alarm
        assert all(each.wait(30) for each in reasons)
    for each in reasons:
        (told,) = each.told
        assert "Rank 1 lagged behind, reading the batch of iteration 3, while others were computing iteration 3" in told


class SilentStore:
    """One whose process was stopped: who asks it waits."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()

    def set(self, *_: object) -> None:
        self.goes_on.wait()

    def check(self, *_: object) -> bool:
        self.goes_on.wait()
        return False


def test_a_store_that_does_not_answer_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roll_call, "LISTENING", 0.2)
    store, reasons = SilentStore(), Reasons()
    watchdog = Watchdog(timeout=0.3, heartbeats=Heartbeats(store, rank=1, size=2), on_stall=reasons, size=2)
    with watchdog.watching():
        working(watchdog)
        assert reasons.wait(20)
    store.goes_on.set()
    (told,) = reasons.told
    assert "Who holds the run up is not known, because the store of the ranks does not answer" in told
