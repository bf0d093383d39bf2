"""Evaluation by the tasks of lm-eval (eval.py, and while training)."""

from __future__ import annotations

from pydantic import Field

from megatron.neox_arguments.keys.types import Group, Integer, IntegerOrNumber, Texts


class EvaluationArgs(Group):
    """Which tasks a model is measured by, how, and where the results go."""

    eval_tasks: Texts | None = None
    """Tasks of lm-eval: names of tasks, groups and tags, patterns of names, or paths of YAML files of tasks, e.g.
    `["lambada_openai", "mmlu_*", "tasks/mine.yaml"]`. eval.py runs them, and training does (see eval_tasks_interval)."""

    eval_tasks_interval: Integer = Field(0, ge=0)
    """Iterations of training between two evaluations on eval_tasks; 0 evaluates after training only. Training waits for them."""

    eval_include_path: str | None = None
    """Directory with tasks of your own: every YAML file of lm-eval's kind in it and below is known by the name it gives itself."""

    eval_num_fewshot: Integer | None = Field(None, ge=0)
    """Solved examples put before each question, in all tasks but those that say 0 themselves. Default: what each task says, else 0."""

    eval_limit: IntegerOrNumber | None = Field(None, gt=0)
    """Only the first examples of each task, this many, or below 1 this part of them. For trying things out: such results are no scores."""

    eval_batch_size: Integer = Field(16, ge=1)
    """Texts that are scored together on each copy of the model, or prompts that are continued together. Changes speed and memory only."""

    eval_results_prefix: str = ""
    """Beginning of the names of the files with results: `PREFIX_eval_results_DATE.json`. May begin with folders, and may be one (`results/`)."""

    eval_log_samples: bool = False
    """Also write every example with the model's answers and scores, one JSON object a line, beside the results."""
