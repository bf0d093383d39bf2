"""Evaluation is a token-weighted mean over the same samples every time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from megatron.training.evaluate import Evaluator, mean_loss, perplexity
from megatron.training.state import TrainState


class FakeEngine:
    """Answers each global batch with the (loss sum, weight) it is given as its batch."""

    def evaluate_step(self, micro_batches: Any) -> tuple[float, float]:
        return micro_batches


class FakeReporter:
    def __init__(self) -> None:
        self.evaluations: list[tuple[str, int, float]] = []
        self.messages: list[str] = []

    def evaluation(self, part: str, *, iteration: int, values: Mapping[str, float]) -> None:
        self.evaluations.append((part, iteration, values["loss"]))

    def message(self, text: str) -> None:
        self.messages.append(text)


def source() -> Iterator[Any]:
    return iter([(6.0, 2.0), (2.0, 6.0), (100.0, 1.0)])


def evaluator(reporter: FakeReporter, **changes: Any) -> Evaluator:
    values = {"validation": {"validation": source}, "test": source, "eval_interval": 5, "eval_iters": 2, **changes}
    return Evaluator(FakeEngine(), reporter, **values)  # type: ignore[arg-type]


def test_the_mean_weighs_tokens_not_batches() -> None:
    assert mean_loss(FakeEngine(), source(), iterations=2) == 1.0  # type: ignore[arg-type]


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


def test_perplexity_overflows_to_infinity() -> None:
    assert perplexity(0.0) == 1.0
    assert perplexity(1e4) == math.inf
    assert perplexity(2.0) == pytest.approx(7.389056)
