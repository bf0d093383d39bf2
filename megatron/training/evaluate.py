"""Evaluation during and after training: mean loss over the same held-out samples of each set every time, and the tasks of lm-eval."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from megatron.data.batch import Batch
from megatron.engine.protocol import Engine
from megatron.monitor.reporter import Reporter
from megatron.neox_arguments.validation_sets import UNNAMED
from megatron.training.characters import CharacterCount
from megatron.training.state import TrainState

if TYPE_CHECKING:
    from megatron.training.tasks import TaskEvaluation

BatchSource = Callable[[], Iterator[Sequence[Batch] | None]]
"""Starts over at the first held-out sample whenever it is called, so that evaluations can be compared."""


@dataclass(frozen=True)
class Totals:
    """Over all tokens that count: their summed loss in nats, and how many they are."""

    loss: float
    weight: float


class Evaluator:
    """Evaluates on every validation set each `eval_interval` iterations (0: never), over `eval_iters` global batches, and on tasks each
    `tasks_interval` iterations (0: never)."""

    def __init__(
        self,
        engine: Engine,
        reporter: Reporter,
        *,
        validation: Mapping[str, BatchSource],
        test: BatchSource | None,
        eval_interval: int,
        eval_iters: int,
        tasks: TaskEvaluation | None = None,
        tasks_interval: int = 0,
        count_characters: Callable[[], CharacterCount] | None = None,
    ) -> None:
        """validation: the sets that have data, by name; test: None without data; count_characters: begins to count those of a set, None
        where perplexity per character is not asked for."""
        self._engine = engine
        self._reporter = reporter
        self.sets, self.has_test = tuple(validation), test is not None
        self._validation = {reported_as(name): source for name, source in validation.items()}
        self._test = test
        self._eval_interval = eval_interval
        self._eval_iters = eval_iters
        self._tasks = tasks
        self._tasks_interval = tasks_interval
        self._count_characters = count_characters
        self._characters: dict[str, int] = {}
        self._validated_at: int | None = None
        self._tasks_ran_at: int | None = None

    def maybe_run(self, state: TrainState) -> None:
        """Evaluate on the validation sets when it is time, and on the tasks when it is theirs."""
        if self._eval_interval and state.iteration % self._eval_interval == 0:
            self._validate(state)
        if self._tasks_interval and state.iteration % self._tasks_interval == 0:
            self._run_tasks(state)

    def finish(self, state: TrainState) -> None:
        """Evaluate the final weights on the validation sets and the tasks (unless just done) and on the test part."""
        if self._validated_at != state.iteration:
            self._validate(state)
        if self._test is not None:
            self.run("test", self._test, state)
        if self._tasks_ran_at != state.iteration:
            self._run_tasks(state)

    def _validate(self, state: TrainState) -> None:
        for name, source in self._validation.items():
            self.run(name, source, state)
        self._validated_at = state.iteration

    def _run_tasks(self, state: TrainState) -> None:
        if self._tasks is not None:
            self._tasks.run(state)
        self._tasks_ran_at = state.iteration

    def run(self, part: str, source: BatchSource, state: TrainState) -> None:
        """Evaluate on one set and report loss (nats per token) and perplexity, under the name `part`."""
        if self._eval_iters == 0:
            return
        totals = self._totals(part, source())
        if not totals.weight:
            self._reporter.message(
                f"{part} after iteration {state.iteration}: no token of its samples is to be predicted"
            )
            return
        loss = totals.loss / totals.weight
        values = {"loss": loss, "perplexity": perplexity(loss)}
        if self._characters.get(part):
            values["char_perplexity"] = perplexity(totals.loss / self._characters[part])
        self._reporter.evaluation(part, iteration=state.iteration, values=values)

    def _totals(self, part: str, batches: Iterator[Sequence[Batch] | None]) -> Totals:
        if self._count_characters is None or part in self._characters:
            return total_loss(self._engine, batches, iterations=self._eval_iters)
        count = self._count_characters()
        totals = total_loss(self._engine, count.follow(batches), iterations=self._eval_iters)
        self._characters[part] = count.total()  # once: every evaluation reads the same samples
        return totals


def reported_as(name: str) -> str:
    """The name of a validation set in metrics: "validation" for the unnamed one, below that the others."""
    return name if name == UNNAMED else f"{UNNAMED}/{name}"


def total_loss(engine: Engine, batches: Iterator[Sequence[Batch] | None], *, iterations: int) -> Totals:
    """The totals over `iterations` global batches, the same on every rank."""
    loss = weight = 0.0
    for _ in range(iterations):
        step_loss, step_weight = engine.evaluate_step(next(batches))
        loss += step_loss
        weight += step_weight
    return Totals(loss, weight)


def perplexity(loss: float) -> float:
    """exp(loss), infinite where that overflows."""
    return math.exp(loss) if loss < 700 else math.inf
