"""Measures a model by tasks: the first rank runs lm-eval, all ranks run the model. Used by eval.py and while training."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from megatron.checkpointing.ranks import Ranks
from megatron.evaluation.library import quiet, seeded
from megatron.evaluation.rehearsal import set_fewshot
from megatron.evaluation.settings import EvaluationSettings
from megatron.evaluation.tasks import Tasks, find_tasks
from megatron.evaluation.work import Workers
from megatron.generation.decode import Decoder
from megatron.generation.model import InferenceModel
from megatron.log import get_logger
from megatron.mpu.broadcast import broadcast_object
from megatron.mpu.groups import Group, ProcessGroups, build_saving_group
from megatron.tokenizer.base import Tokenizer

logger = get_logger(__name__)

Metrics = dict[str, dict[str, float]]
"""Value by metric by task or group; a metric that is taken after a filter is called `metric,filter`."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured. metrics: on every rank. The rest on the first only: results, lm-eval's dictionary; samples, by task, where they
    were asked for; seconds that it took."""

    metrics: Metrics
    results: Mapping[str, Any] = field(default_factory=dict)
    samples: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


def prepare(settings: EvaluationSettings, world: Group, *, max_positions: int | None = None) -> Tasks | None:
    """The tasks, their data read, on the first rank; None on the others (collective over `world`). max_positions: as `find_tasks` has it.

    Raises CheckpointError or DataError, saying what `find_tasks` says, on every rank.
    """
    found: list[Tasks] = []
    # Downloading may take longer than a collective of the run may.
    group = build_saving_group(world)
    Ranks(group, "preparing eval_tasks").first(lambda: found.append(find_tasks(settings, max_positions)))
    return found[0] if found else None


def evaluate_tasks(
    model: InferenceModel,
    tokenizer: Tokenizer,
    settings: EvaluationSettings,
    *,
    groups: ProcessGroups,
    vocab_size: int,
    max_positions: int,
    shares_requests: bool = True,
    tasks: Tasks | None = None,
) -> Evaluation:
    """Run tasks on a model (all ranks call this). vocab_size: rows of the model's vocabulary without padding.

    max_positions: the longest text it reads; shares_requests: each replica runs a part of the requests, else all run all of them, as they
    must where weights lie in pieces. tasks: what `prepare` gave; without them they are prepared here.

    Raises NeoXError on every rank when the tasks cannot be prepared or run.
    """
    started = time.monotonic()
    is_first = groups.world.rank == 0
    if broadcast_object(tasks is None, groups.world):
        tasks = prepare(settings, groups.world, max_positions=max_positions)
    decoder = Decoder(model, vocab_size=tokenizer.vocab_size, max_positions=max_positions)
    workers = Workers(
        decoder,
        tokenizer,
        groups,
        vocab_size=vocab_size,
        batch_size=settings.batch_size,
        shares_requests=shares_requests,
    )
    results = workers.run(lambda: _run(workers, tokenizer, settings, tasks, max_positions)) or {}
    samples = results.pop("samples", None) or {}
    metrics: Metrics = broadcast_object(metrics_of(results) if is_first else None, groups.world)
    return Evaluation(metrics, results, samples, time.monotonic() - started)


def metrics_of(results: Mapping[str, Any]) -> Metrics:
    """The numbers in lm-eval's results, standard errors as `metric_stderr`."""
    return {
        task: {
            name.removesuffix(",none"): float(value)
            for name, value in values.items()
            if "," in name and isinstance(value, int | float) and not isinstance(value, bool)
        }
        for task, values in results.get("results", {}).items()
    }


def _run(
    workers: Workers, tokenizer: Tokenizer, settings: EvaluationSettings, tasks: Tasks | None, max_positions: int
) -> dict[str, Any]:
    """lm-eval's results on the first rank."""
    from lm_eval.evaluator import evaluate

    from megatron.evaluation.harness import HarnessModel  # both import lm-eval

    assert tasks is not None
    of = "" if tasks.number == len(tasks.names) else f" ({tasks.number} tasks)"
    logger.info(f"evaluating {', '.join(tasks.names)}{of}")
    for name, task in tasks.loaded["tasks"].items():
        set_fewshot(name, task, settings)
    harness = HarnessModel(workers, tokenizer, max_length=max_positions)
    with quiet(), seeded(settings.seed):
        results: dict[str, Any] = evaluate(
            lm=harness,
            task_dict=tasks.loaded,
            limit=settings.limit,
            bootstrap_iters=settings.bootstrap_iterations,
            log_samples=settings.log_samples,
        )
    return results
