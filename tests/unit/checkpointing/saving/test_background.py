"""Work beside the training: one piece at a time, errors that reach whoever waits, and no exit that is held up."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as StillRunning

import pytest

from megatron.checkpointing.saving import background
from megatron.checkpointing.saving.background import Background
from megatron.errors import CheckpointError


def test_an_action_runs_beside_the_one_who_started_it_until_it_is_waited_for() -> None:
    goes_on, done = threading.Event(), []
    work = Background("test")

    def action() -> None:
        goes_on.wait(10)
        done.append(threading.current_thread().name)

    work.start(action)
    assert not done
    goes_on.set()
    work.wait()
    assert done == ["test"]
    assert not work.failed
    work.start(lambda: done.append("again"))
    work.wait()
    assert done == ["test", "again"]


def test_a_second_action_has_to_wait_for_the_first() -> None:
    work = Background("test")
    work.start(lambda: None)
    with pytest.raises(AssertionError):
        work.start(lambda: None)
    work.wait()


def fail() -> None:
    raise CheckpointError("the disk is full")


def test_an_error_is_raised_by_every_wait_from_then_on() -> None:
    work = Background("test")
    work.start(fail)
    for _ in range(2):
        with pytest.raises(CheckpointError, match="the disk is full"):
            work.wait()
    assert work.failed


def test_an_action_that_times_out_itself_is_an_error_and_not_a_wait_for_ever() -> None:
    def give_up() -> None:
        raise StillRunning

    work = Background("test")
    work.start(give_up)
    with pytest.raises(StillRunning):
        work.wait()


def test_an_action_that_ends_just_when_a_look_at_it_does_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "LOOK_SECONDS", 0.01)

    class EndsThen(Future[None]):
        def result(self, timeout: float | None = None) -> None:
            try:
                super().result(timeout)
            except StillRunning:
                self.set_result(None)
                raise

    ending = EndsThen()
    monkeypatch.setattr(background, "in_background", lambda *_, **__: ending)

    def end() -> None:
        if not ending.done():
            ending.set_result(None)

    work = Background("test", alive=end)
    work.start(lambda: None)
    work.wait()


def test_whoever_waits_says_that_he_is_alive_and_may_give_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "LOOK_SECONDS", 0.01)
    goes_on, signs = threading.Event(), []

    def alive() -> None:
        signs.append(1)
        if len(signs) == 8:
            goes_on.set()

    work = Background("test", alive=alive)
    work.start(lambda: None if goes_on.wait(10) else fail())
    work.wait(seconds=0.03)
    assert 1 <= len(signs) <= 4
    work.wait()
    assert len(signs) == 8


def test_a_process_that_ends_does_not_wait_for_its_background() -> None:
    program = "import time; from megatron.checkpointing.saving.background import in_background; in_background(lambda: time.sleep(60), name='slow'); 1 / 0"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30, check=False)
    assert ended.returncode == 1
