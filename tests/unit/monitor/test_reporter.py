"""The reporter sends what happened to every writer and to the screen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from megatron.monitor.console import SilentScreen
from megatron.monitor.reporter import Reporter, build_reporter, writer_names
from tests.unit.monitor.test_console import metrics


class Recorder:
    def __init__(self) -> None:
        self.records: list[tuple[int, dict[str, object]]] = []
        self.closed = False

    def write(self, iteration: int, record: Mapping[str, object]) -> None:
        self.records.append((iteration, dict(record)))

    def close(self) -> None:
        self.closed = True


def arguments(directory: Path, tensorboard: str | None = None) -> Any:
    return SimpleNamespace(log_dir=str(directory), tensorboard_dir=tensorboard, log_interval=1)


def test_steps_and_evaluations_reach_every_writer() -> None:
    first, second = Recorder(), Recorder()
    reporter = Reporter(SilentScreen(), [first, second])
    reporter.step(metrics(3))
    reporter.evaluation("validation", iteration=3, values={"loss": 2.0})
    reporter.close()
    assert first.records == second.records
    assert first.records[0][1]["loss"] == 2.34567
    assert "mfu" not in first.records[0][1]
    assert first.records[1] == (3, {"validation/loss": 2.0})
    assert first.closed
    assert second.closed


class FullDisk(Recorder):
    def write(self, iteration: int, record: Mapping[str, object]) -> None:
        raise OSError(28, "No space left on device")


class Messages(SilentScreen):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, text: str) -> None:
        self.texts.append(text)


def test_a_writer_that_fails_is_named_once_and_the_others_go_on() -> None:
    screen, other = Messages(), Recorder()
    reporter = Reporter(screen, [FullDisk(), other])
    for iteration in (1, 2):
        reporter.step(metrics(iteration))
    assert [iteration for iteration, _ in other.records] == [1, 2]
    assert len(screen.texts) == 1
    assert "FullDisk cannot write metrics any more" in screen.texts[0]
    assert "No space left" in screen.texts[0]


def test_only_the_first_rank_writes_files(tmp_path: Path) -> None:
    build_reporter(arguments(tmp_path / "other"), rank=1).step(metrics(1))
    assert not (tmp_path / "other").exists()
    build_reporter(arguments(tmp_path / "first"), rank=0).step(metrics(1))
    assert (tmp_path / "first" / "metrics.jsonl").exists()


def test_tensorboard_is_written_when_its_directory_is_set(tmp_path: Path) -> None:
    args = arguments(tmp_path, tensorboard=str(tmp_path / "board"))
    assert writer_names(args) == ["jsonl", "tensorboard"]
    reporter = build_reporter(args, rank=0)
    reporter.step(metrics(1))
    reporter.close()
    assert scalars(tmp_path / "board")["train/loss"] == [(1, 2.34567)]


def scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory))
    events.Reload()
    return {
        tag: [(event.step, round(event.value, 5)) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }
