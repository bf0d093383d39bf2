"""What a run tells of an evaluation on tasks, and that nothing which goes wrong there ends it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from megatron.errors import DataError
from megatron.evaluation.evaluate import Evaluation
from megatron.initialize import World
from megatron.mpu.groups import single_process_groups
from megatron.neox_arguments import NeoXArgs
from megatron.tokenizer.char_level import CharLevelTokenizer
from megatron.training import tasks
from megatron.training.setup import prepare_tasks
from megatron.training.state import TrainState
from megatron.training.tasks import TaskEvaluation
from tests.toy_model import TOY_CONFIG

MEASURED = Evaluation({"small": {"acc": 0.5, "acc_stderr": 0.1}, "other": {"f1": 1.0}}, {"results": {"small": {}}})
WORLD = World(single_process_groups(), torch.device("cpu"))


class FakeReporter:
    def __init__(self) -> None:
        self.evaluations: list[tuple[str, int, Mapping[str, float]]] = []
        self.messages: list[str] = []

    def evaluation(self, part: str, *, iteration: int, values: Mapping[str, float]) -> None:
        self.evaluations.append((part, iteration, values))

    def message(self, text: str) -> None:
        self.messages.append(text)


def run_tasks(
    monkeypatch: pytest.MonkeyPatch, log_dir: Path, *, outcome: Evaluation | Exception = MEASURED, **keys: Any
) -> FakeReporter:
    """What is reported of an evaluation with this outcome, after iteration 7."""

    def evaluate_tasks(*_: Any, **options: Any) -> Evaluation:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(tasks, "evaluate_tasks", evaluate_tasks)
    monkeypatch.setattr(TaskEvaluation, "_model", lambda self: None)
    reporter = FakeReporter()
    build(reporter, log_dir=str(log_dir), **keys).run(TrainState(iteration=7))
    return reporter


def build(reporter: FakeReporter, *, alive: Callable[[], None] = lambda: None, **keys: Any) -> TaskEvaluation:
    args = NeoXArgs.from_dict({**TOY_CONFIG, "eval_tasks": ["small"], **keys})
    engine: Any = SimpleNamespace(weights_are_whole=True)
    teller: Any = reporter
    return TaskEvaluation(args, WORLD, engine, teller, CharLevelTokenizer(), tasks=None, alive=alive)


def test_every_task_is_reported_under_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reporter = run_tasks(monkeypatch, tmp_path)
    assert reporter.evaluations == [
        ("tasks/small", 7, {"acc": 0.5, "acc_stderr": 0.1}),
        ("tasks/other", 7, {"f1": 1.0}),
    ]
    assert reporter.messages == []


def test_results_lie_beside_the_metrics_or_where_the_prefix_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run_tasks(monkeypatch, tmp_path)
    (file,) = tmp_path.glob("eval_results_*.json")
    assert json.loads(file.read_text())["model"] == {"iteration": 7}
    (tmp_path / "elsewhere").mkdir()
    run_tasks(monkeypatch, tmp_path, eval_results_prefix=str(tmp_path / "elsewhere" / "mine"))
    assert len(list((tmp_path / "elsewhere").glob("mine_eval_results_*.json"))) == 1


def test_tasks_that_fail_are_told_and_do_not_end_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reporter = run_tasks(monkeypatch, tmp_path, outcome=DataError("an answer to score is empty"))
    assert reporter.messages == [
        "eval_tasks failed after iteration 7, and training goes on: an answer to score is empty"
    ]
    assert reporter.evaluations == []


def test_a_disk_that_takes_no_results_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reporter = run_tasks(monkeypatch, tmp_path, eval_results_prefix=str(tmp_path / "missing" / "mine"))
    assert len(reporter.evaluations) == 2
    (message,) = reporter.messages
    assert message.startswith(f"the results of eval_tasks cannot be written to {tmp_path / 'missing' / 'mine'}_eval_")


@pytest.mark.parametrize("are_whole", [True, False])
def test_copies_share_the_requests_where_each_has_all_weights(monkeypatch: pytest.MonkeyPatch, are_whole: bool) -> None:
    given: list[bool] = []

    def evaluate_tasks(*_: Any, shares_requests: bool, **__: Any) -> Evaluation:
        given.append(shares_requests)
        return MEASURED

    monkeypatch.setattr(tasks, "evaluate_tasks", evaluate_tasks)
    monkeypatch.setattr(TaskEvaluation, "_model", lambda self: None)
    evaluation = build(FakeReporter())
    monkeypatch.setattr(evaluation, "_engine", SimpleNamespace(weights_are_whole=are_whole))
    evaluation._evaluate()
    assert given == [are_whole]


def test_every_batch_is_a_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    beats: list[str] = []
    monkeypatch.setattr(tasks, "inference_view", lambda *_, **__: nn.Sequential(nn.Identity(), nn.Identity()))
    model = build(FakeReporter(), alive=lambda: beats.append("alive"))._model()
    model(torch.ones(1))
    model(torch.ones(1))
    assert beats == ["alive"] * 2


def test_a_run_without_tasks_prepares_none() -> None:
    assert prepare_tasks(NeoXArgs.from_dict(TOY_CONFIG), WORLD) is None
