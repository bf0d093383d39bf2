"""Evaluation is a token-weighted mean over the same samples every time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from megatron.training.evaluate import Evaluator, Totals, perplexity, total_loss
from megatron.training.state import TrainState


class FakeEngine:
    """Answers each global batch with the (loss sum, weight) it is given as its batch."""

    def evaluate_step(self, micro_batches: Any) -> tuple[float, float]:
        return micro_batches


class FakeReporter:
    def __init__(self) -> None:
        self.evaluations: list[tuple[str, int, float]] = []
        self.values: list[Mapping[str, float]] = []
        self.messages: list[str] = []

    def evaluation(self, part: str, *, iteration: int, values: Mapping[str, float]) -> None:
        self.evaluations.append((part, iteration, values["loss"]))
        self.values.append(values)

    def message(self, text: str) -> None:
        self.messages.append(text)


class FakeTasks:
    def __init__(self) -> None:
        self.ran_at: list[int] = []

    def run(self, state: TrainState) -> None:
        self.ran_at.append(state.iteration)


class FakeCount:
    """Counts ten characters a batch."""

    begun = 0

    def __init__(self) -> None:
        FakeCount.begun += 1
        self._batches = 0

    def follow(self, batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            self._batches += 1
            yield batch

    def total(self) -> int:
        return 10 * self._batches


def source() -> Iterator[Any]:
    return iter([(6.0, 2.0), (2.0, 6.0), (100.0, 1.0)])


def evaluator(reporter: FakeReporter, **changes: Any) -> Evaluator:
    values = {"validation": {"validation": source}, "test": source, "eval_interval": 5, "eval_iters": 2, **changes}
    return Evaluator(FakeEngine(), reporter, **values)  # type: ignore[arg-type]


def test_the_mean_weighs_tokens_not_batches() -> None:
    assert total_loss(FakeEngine(), source(), iterations=2) == Totals(8.0, 8.0)  # type: ignore[arg-type]


def test_validation_runs_every_interval_from_the_first_sample() -> None:
    reporter = FakeReporter()
    runner = evaluator(reporter)
    for iteration in range(1, 11):
        runner.maybe_run(TrainState(iteration=iteration))
    assert reporter.evaluations == [("validation", 5, 1.0), ("validation", 10, 1.0)]


def test_the_end_evaluates_both_parts_once() -> None:
    reporter = FakeReporter()
    runner = evaluator(reporter)
    runner.maybe_run(TrainState(iteration=10))
    runner.finish(TrainState(iteration=10))
    assert reporter.evaluations == [("validation", 10, 1.0), ("test", 10, 1.0)]


def test_the_end_evaluates_what_was_trained_since() -> None:
    reporter = FakeReporter()
    runner = evaluator(reporter, test=None)
    runner.maybe_run(TrainState(iteration=5))
    runner.finish(TrainState(iteration=7))
    assert reporter.evaluations == [("validation", 5, 1.0), ("validation", 7, 1.0)]


def test_a_part_without_data_is_left_out() -> None:
    reporter = FakeReporter()
    evaluator(reporter, validation={}, test=None).finish(TrainState(iteration=7))
    assert reporter.evaluations == []


def test_every_set_is_reported_under_its_name() -> None:
    reporter = FakeReporter()
    named = evaluator(
        reporter, validation={"validation": source, "code": lambda: iter([(8.0, 2.0), (0.0, 2.0)])}, test=None
    )
    named.maybe_run(TrainState(iteration=5))
    named.finish(TrainState(iteration=5))
    assert reporter.evaluations == [("validation", 5, 1.0), ("validation/code", 5, 2.0)]


def test_an_interval_of_zero_evaluates_at_the_end_only() -> None:
    reporter = FakeReporter()
    runner = evaluator(reporter, eval_interval=0)
    for iteration in range(1, 11):
        runner.maybe_run(TrainState(iteration=iteration))
    assert reporter.evaluations == []
    runner.finish(TrainState(iteration=10))
    assert reporter.evaluations == [("validation", 10, 1.0), ("test", 10, 1.0)]


def test_a_set_without_a_token_to_predict_has_no_loss() -> None:
    reporter = FakeReporter()
    evaluator(reporter, validation={"code": lambda: iter([(0.0, 0.0)] * 2)}, test=None).finish(TrainState(iteration=7))
    assert reporter.evaluations == []
    assert reporter.messages == ["validation/code after iteration 7: no token of its samples is to be predicted"]


def test_no_batches_are_no_evaluation() -> None:
    reporter = FakeReporter()
    evaluator(reporter, eval_iters=0).finish(TrainState(iteration=7))
    assert (reporter.evaluations, reporter.messages) == ([], [])


@pytest.mark.parametrize(
    ("interval", "iterations"), [(0, [8]), (3, [3, 6, 8]), (4, [4, 8]), (100, [8])], ids=lambda value: str(value)
)
def test_tasks_run_every_interval_and_once_at_the_end(interval: int, iterations: list[int]) -> None:
    tasks = FakeTasks()
    runner = evaluator(FakeReporter(), tasks=tasks, tasks_interval=interval)
    for iteration in range(1, 9):
        runner.maybe_run(TrainState(iteration=iteration))
    runner.finish(TrainState(iteration=8))
    assert tasks.ran_at == iterations


def test_a_resumed_run_runs_tasks_where_the_unbroken_one_does() -> None:
    tasks = FakeTasks()
    runner = evaluator(FakeReporter(), tasks=tasks, tasks_interval=3)
    for iteration in range(5, 9):
        runner.maybe_run(TrainState(iteration=iteration))
    assert tasks.ran_at == [6]


def test_perplexity_per_character_is_of_the_summed_loss_over_characters_counted_once_a_set() -> None:
    reporter = FakeReporter()
    FakeCount.begun = 0
    runner = evaluator(reporter, count_characters=FakeCount)
    for iteration in (5, 10):
        runner.maybe_run(TrainState(iteration=iteration))
    runner.finish(TrainState(iteration=10))
    assert FakeCount.begun == 2  # validation and test
    assert len(reporter.values) == 3
    for values in reporter.values:
        assert values == {"loss": 1.0, "perplexity": math.exp(1.0), "char_perplexity": math.exp(8.0 / 20)}


def test_perplexity_overflows_to_infinity() -> None:
    assert perplexity(0.0) == 1.0
    assert perplexity(1e4) == math.inf
    assert perplexity(2.0) == pytest.approx(7.389056)
