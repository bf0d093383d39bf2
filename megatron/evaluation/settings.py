"""How a model is evaluated: the keys of a configuration that say so, and what is always the same."""

from __future__ import annotations

from dataclasses import dataclass

from megatron.neox_arguments import NeoXArgs


@dataclass(frozen=True)
class EvaluationSettings:
    """Which tasks are run and how; the fields are the keys of `EvaluationArgs`.

    seed: of the choice of solved examples, and of whatever a task draws with numpy or torch; lm-eval's own, so that others get the same
    prompts. bootstrap_iterations: samples drawn for the standard error of a metric that is no mean (perplexity, F1); 1,000 of them know it
    to about 2 %.
    """

    tasks: tuple[str, ...]
    include_path: str | None = None
    num_fewshot: int | None = None
    limit: float | None = None
    batch_size: int = 16
    log_samples: bool = False
    seed: int = 1234
    bootstrap_iterations: int = 1000


def evaluation_settings(args: NeoXArgs) -> EvaluationSettings:
    """How the configuration wants models evaluated."""
    return EvaluationSettings(
        args.eval_tasks or (),
        include_path=args.eval_include_path,
        num_fewshot=args.eval_num_fewshot,
        limit=args.eval_limit,
        batch_size=args.eval_batch_size,
        log_samples=args.eval_log_samples,
    )
