"""The reporter sends what happened to every writer and to the screen."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from megatron.errors import MissingRequirement
from megatron.monitor.console import SilentScreen
from megatron.monitor.reporter import Reporter, build_reporter, writer_names
from megatron.monitor.writers.base import Process, WriterFailed
from megatron.registry import Registry
from tests.unit.monitor.test_console import metrics


class Recorder:
    def __init__(self) -> None:
        self.records: list[tuple[int, dict[str, object]]] = []
        self.closed = False
        self.failed = False

    def write(self, iteration: int, record: Mapping[str, object]) -> None:
        self.records.append((iteration, dict(record)))

    def close(self, *, failed: bool = False) -> None:
        self.closed, self.failed = True, failed


def arguments(directory: Path, **keys: Any) -> Any:
    defaults = {"tensorboard_dir": None, "use_wandb": None, "use_comet": None, "wandb_init_all_ranks": False}
    return SimpleNamespace(log_dir=str(directory), log_interval=1, **{**defaults, **keys})


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


class LostService(Recorder):
    def __init__(self, args: Any = None, process: Process | None = None) -> None:
        super().__init__()
        if args is not None:
            raise WriterFailed("the service is gone")

    def write(self, iteration: int, record: Mapping[str, object]) -> None:
        raise WriterFailed("the service is gone")

    def close(self, *, failed: bool = False) -> None:
        raise WriterFailed("the service is gone")


class Messages(SilentScreen):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, text: str) -> None:
        self.texts.append(text)


def test_an_evaluation_is_one_line_on_the_screen() -> None:
    screen = Messages()
    values = {"loss": 2.0, "perplexity": 7.389056, "char_perplexity": 2e12}
    Reporter(screen).evaluation("validation/code", iteration=3, values=values)
    assert screen.texts == ["validation/code after iteration 3: loss 2.0000, perplexity 7.3891, char_perplexity 2e+12"]


@pytest.mark.parametrize(("broken", "reason"), [(FullDisk, "No space left"), (LostService, "the service is gone")])
def test_a_writer_that_fails_is_named_once_and_the_others_go_on(broken: type[Recorder], reason: str) -> None:
    screen, other = Messages(), Recorder()
    reporter = Reporter(screen, [broken(), other])
    for iteration in (1, 2):
        reporter.step(metrics(iteration))
    assert [iteration for iteration, _ in other.records] == [1, 2]
    assert len(screen.texts) == 1
    assert f"{broken.__name__} cannot write metrics any more" in screen.texts[0]
    assert reason in screen.texts[0]


def test_a_writer_that_cannot_finish_is_told_and_the_others_are_finished() -> None:
    screen, other = Messages(), Recorder()
    Reporter(screen, [LostService(), other]).close(failed=True)
    assert (other.closed, other.failed) == (True, True)
    assert screen.texts == ["LostService could not finish (the service is gone): its last metrics may be missing"]


def test_a_run_starts_without_a_writer_that_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    entries = {"jsonl": "megatron.monitor.writers.jsonl:JsonlWriter", "wandb": f"{__name__}:LostService"}
    monkeypatch.setattr("megatron.monitor.reporter.WRITERS", Registry("metric writer", entries))
    reporter = build_reporter(arguments(tmp_path, use_wandb=True), rank=0)
    reporter.step(metrics(1))
    reporter.close()
    assert (tmp_path / "metrics.jsonl").exists()
    assert "LostService cannot write metrics (the service is gone); the run goes on without it" in caplog.text


def test_only_the_first_rank_writes_files(tmp_path: Path) -> None:
    build_reporter(arguments(tmp_path / "other"), rank=1).step(metrics(1))
    assert not (tmp_path / "other").exists()
    build_reporter(arguments(tmp_path / "first"), rank=0).step(metrics(1))
    assert (tmp_path / "first" / "metrics.jsonl").exists()


def test_services_are_chosen_by_their_keys_on_the_first_rank_and_wandb_on_all_if_asked(tmp_path: Path) -> None:
    args = arguments(tmp_path, use_wandb=True, use_comet=True)
    assert [writer_names(args, rank=rank) for rank in (0, 1)] == [["jsonl", "wandb", "comet"], []]
    assert writer_names(arguments(tmp_path, use_wandb=True, wandb_init_all_ranks=True), rank=1) == ["wandb"]
    assert writer_names(arguments(tmp_path, wandb_init_all_ranks=True), rank=1) == []


@pytest.mark.parametrize(("name", "package"), [("wandb", "wandb"), ("comet", "comet_ml")])
def test_a_service_without_its_package_is_told_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"megatron.monitor.writers.{name}", raising=False)
    with pytest.raises(MissingRequirement, match=f'"{package}": pip install -r requirements/requirements-{name}.txt'):
        build_reporter(arguments(tmp_path, **{f"use_{name}": True}), rank=0)


def test_tensorboard_is_written_when_its_directory_is_set(tmp_path: Path) -> None:
    args = arguments(tmp_path, tensorboard_dir=str(tmp_path / "board"))
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
