"""Tries every task on its first example before a model is loaded: what is wrong with one is told at once, and not after hours."""

from __future__ import annotations

from typing import Any

from megatron.errors import ConfigError
from megatron.evaluation.library import one_line
from megatron.evaluation.settings import EvaluationSettings
from megatron.log import get_logger

logger = get_logger(__name__)


def set_fewshot(name: str, task: Any, settings: EvaluationSettings) -> None:
    """Solved examples before a question: as many as the settings say, but none in a task that says 0, as lm-eval has it."""
    own = task.get_config("num_fewshot")
    if settings.num_fewshot is None:
        task.set_config(key="num_fewshot", value=own or 0)
    elif own == 0 and settings.num_fewshot > 0:
        logger.warning(f'the task "{name}" is made for no solved examples before its questions: it is run with none')
    else:
        task.set_config(key="num_fewshot", value=settings.num_fewshot)
    task.set_fewshot_seed(seed=settings.seed)


def rehearse(name: str, task: Any, settings: EvaluationSettings, *, max_positions: int | None) -> None:
    """Make the first example's requests, which `set_fewshot` undoes. max_positions: tokens that the model reads; None: not known yet.

    Raises ConfigError, or DataError for settings of generation that do not exist here.
    """
    set_fewshot(name, task, settings)
    shots = task.get_config("num_fewshot")
    unknown = [metric for metric, aggregation in task.aggregation().items() if not callable(aggregation)]
    if unknown:
        raise ConfigError([f'the task "{name}" has an "aggregation" that lm-eval does not have, of "{unknown[0]}"'])
    try:
        task.build_all_requests(limit=1)
    except Exception as error:
        shown = f" behind {shots} solved ones" if shots else ""
        cure = "; give fewer (--num_fewshot), or more examples" if shots else "; correct its keys, or its data"
        raise ConfigError(
            [f'the first example of the task "{name}" cannot be shown{shown}: {one_line(error)}{cure}']
        ) from error
    request = task.instances[0]
    if request.request_type == "generate_until":
        from megatron.evaluation.generation_kwargs import generation_of  # imports lm-eval

        generation_of(name, request.args[1], max_positions=max_positions)
