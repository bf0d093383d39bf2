"""What is evaluated, and by which tasks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from megatron.neox_arguments.conflict import Conflict

if TYPE_CHECKING:
    from megatron.neox_arguments.resolving.draft import Draft


def check_evaluation_has_tasks(args: Draft) -> None:
    """Tasks are named where they are to be run."""
    if args.eval_tasks:
        return
    example = 'eval_tasks: ["lambada_openai", "piqa"]'
    if is_evaluation(args):
        raise Conflict(("eval_tasks",), f"eval.py needs tasks to run; give some, e.g. {example}")
    if args.eval_tasks_interval:
        raise Conflict(
            ("eval_tasks_interval", "eval_tasks"), f"there are no tasks to run; give some, e.g. {example}, or remove it"
        )


def check_task_names(args: Draft) -> None:
    """No `key=value` is taken for a task: the option takes all words that follow it."""
    for word in args.eval_tasks or ():
        if "=" in word:
            raise Conflict(
                ("eval_tasks",), f'"{word}" is the name of no task; write key=value before --eval_tasks, or behind --'
            )


def check_evaluation_has_a_model(args: Draft) -> None:
    """eval.py measures something that was trained."""
    if is_evaluation(args) and args.load is None:
        raise Conflict(("load",), "eval.py measures a trained model; give the directory of its checkpoints")


def check_example_limit(args: Draft) -> None:
    """A number of examples is whole."""
    if args.eval_limit is not None and args.eval_limit >= 1 and args.eval_limit != int(args.eval_limit):
        raise Conflict(
            ("eval_limit",),
            f"this is a number of examples, or a part of them below 1; set it to {int(args.eval_limit)}, for example",
        )


def check_include_path(args: Draft) -> None:
    """The directory with tasks of the user's is there (checked when a script is run)."""
    if args.eval_include_path is None or not args.user_script:
        return
    path = Path(args.eval_include_path)
    if path.is_file():
        raise Conflict(("eval_include_path",), "this is a file; give the directory it is in, or name it in eval_tasks")
    if not path.is_dir():
        raise Conflict(("eval_include_path",), "there is no such directory; correct the path")


def is_evaluation(args: Draft) -> bool:
    """Whether eval.py is run."""
    return Path(args.user_script or "").name == "eval.py"
