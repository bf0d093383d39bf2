"""Evaluation during and after training: mean loss over the same held-out samples of each set every time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from megatron.data.batch import Batch
from megatron.engine.protocol import Engine
from megatron.monitor.reporter import Reporter
from megatron.neox_arguments.validation_sets import UNNAMED
from megatron.training.state import TrainState

BatchSource = Callable[[], Iterator[Sequence[Batch] | None]]
"""Starts over at the first held-out sample whenever it is called, so that evaluations can be compared."""


class Evaluator:
    """Evaluates on every validation set each `eval_interval` iterations (0: never), over `eval_iters` global batches."""

    def __init__(
        self,
        engine: Engine,
        reporter: Reporter,
        *,
        validation: Mapping[str, BatchSource],
        test: BatchSource | None,
        eval_interval: int,
        eval_iters: int,
    ) -> None:
        """validation: the sets that have data, by name; test: None without data."""
        self._engine = engine
        self._reporter = reporter
        self.sets, self.has_test = tuple(validation), test is not None
        self._validation = {reported_as(name): source for name, source in validation.items()}
        self._test = test
        self._eval_interval = eval_interval
        self._eval_iters = eval_iters
        self._validated_at: int | None = None

    def maybe_run(self, state: TrainState) -> None:
        """Evaluate on the validation sets when it is time."""
        if self._eval_interval and state.iteration % self._eval_interval == 0:
            self._validate(state)

    def finish(self, state: TrainState) -> None:
        """Evaluate the final weights on the validation sets (unless just done) and on the test part."""
        if self._validated_at != state.iteration:
            self._validate(state)
        if self._test is not None:
            self.run("test", self._test, state)

    def _validate(self, state: TrainState) -> None:
        for name, source in self._validation.items():
            self.run(name, source, state)
        self._validated_at = state.iteration

    def run(self, part: str, source: BatchSource, state: TrainState) -> None:
        """Evaluate on one set and report loss (nats per token) and perplexity, under the name `part`."""
        if self._eval_iters == 0:
            return
        loss = mean_loss(self._engine, source(), iterations=self._eval_iters)
        if loss is None:
            self._reporter.message(
                f"{part} after iteration {state.iteration}: no token of its samples is to be predicted"
            )
            return
        self._reporter.evaluation(
            part, iteration=state.iteration, values={"loss": loss, "perplexity": perplexity(loss)}
        )


def reported_as(name: str) -> str:
    """The name of a validation set in metrics: "validation" for the unnamed one, below that the others."""
    return name if name == UNNAMED else f"{UNNAMED}/{name}"


def mean_loss(engine: Engine, batches: Iterator[Sequence[Batch] | None], *, iterations: int) -> float | None:
    """Loss in nats per non-masked token over `iterations` global batches; None when all tokens are masked."""
    loss_sum = weight = 0.0
    for _ in range(iterations):
        step_loss, step_weight = engine.evaluate_step(next(batches))
        loss_sum += step_loss
        weight += step_weight
    return loss_sum / weight if weight else None


def perplexity(loss: float) -> float:
    """exp(loss), infinite where that overflows."""
    return math.exp(loss) if loss < 700 else math.inf
