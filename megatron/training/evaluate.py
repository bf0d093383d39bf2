"""Evaluation during and after training: mean loss over the same held-out samples every time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from megatron.data.batch import Batch
from megatron.engine.protocol import Engine
from megatron.monitor.reporter import Reporter
from megatron.training.state import TrainState

BatchSource = Callable[[], Iterator[Sequence[Batch] | None]]
"""Starts over at the first held-out sample whenever it is called, so that evaluations can be compared."""


class Evaluator:
    """Evaluates on the validation part every `eval_interval` iterations, over `eval_iters` global batches."""

    def __init__(
        self,
        engine: Engine,
        reporter: Reporter,
        *,
        validation: BatchSource | None,
        test: BatchSource | None,
        eval_interval: int,
        eval_iters: int,
    ) -> None:
        self._engine = engine
        self._reporter = reporter
        self._sources = {"validation": validation, "test": test}
        self._eval_interval = eval_interval
        self._eval_iters = eval_iters
        self._validated_at: int | None = None

    def maybe_run(self, state: TrainState) -> None:
        """Evaluate on the validation part when it is time."""
        if self._eval_interval and state.iteration % self._eval_interval == 0:
            self.run("validation", state)

    def finish(self, state: TrainState) -> None:
        """Evaluate the final weights on the validation part (unless just done) and the test part."""
        if self._validated_at != state.iteration:
            self.run("validation", state)
        self.run("test", state)

    def run(self, part: str, state: TrainState) -> None:
        """Evaluate on one part, if it has data, and report loss (nats per token) and perplexity."""
        source = self._sources[part]
        if source is None or self._eval_iters == 0:
            return
        loss = mean_loss(self._engine, source(), iterations=self._eval_iters)
        self._reporter.evaluation(
            part, iteration=state.iteration, values={"loss": loss, "perplexity": perplexity(loss)}
        )
        if part == "validation":
            self._validated_at = state.iteration


def mean_loss(engine: Engine, batches: Iterator[Sequence[Batch] | None], *, iterations: int) -> float:
    """Loss in nats per non-masked token over `iterations` global batches."""
    loss_sum = weight = 0.0
    for _ in range(iterations):
        step_loss, step_weight = engine.evaluate_step(next(batches))
        loss_sum += step_loss
        weight += step_weight
    return loss_sum / weight if weight else math.nan


def perplexity(loss: float) -> float:
    """exp(loss), infinite where that overflows."""
    return math.exp(loss) if loss < 700 else math.inf
