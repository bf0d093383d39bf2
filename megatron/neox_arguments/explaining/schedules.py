"""What changes in the course of a run, and when it is evaluated, in words."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from megatron.neox_arguments.arguments import NeoXArgs
from megatron.neox_arguments.batch_schedule import batch_schedule
from megatron.neox_arguments.sequence_schedule import FullLength, sequence_schedule
from megatron.neox_arguments.validation_sets import UNNAMED, validation_sets


def growth(args: NeoXArgs) -> dict[str, str]:
    """What grows from step to step, by title; nothing in most runs."""
    facts = {}
    if args.rampup_batch_size is not None:
        start, increment, _ = args.rampup_batch_size
        last = batch_schedule(args).stages[-1]
        facts["ramp-up"] = (
            f"from {start} samples a step to {args.train_batch_size} by {increment}, in the first {last.first_step:,} "
            f"steps, {last.first_sample:,} samples"
        )
    lengths = sequence_schedule(args)
    if not isinstance(lengths, FullLength):
        steps = range(_curriculum_steps(args))
        longest = lengths.length_of(steps[-1])
        reached = bisect_left(steps, longest, key=lengths.length_of)
        facts["curriculum"] = (
            f"the first {lengths.length_of(0)} tokens of each sample, {longest} from iteration {reached + 1:,} on"
        )
    return facts


def evaluation(args: NeoXArgs, sets: Sequence[str], *, test: bool) -> str:
    """On which sets a run is evaluated, how much of them and when, and on which tasks. sets: names of the validation sets that have data;
    test: whether there is a test part."""
    return "; ".join([_samples(args, sets, test=test), *_tasks(args)])


def configured_evaluation(args: NeoXArgs) -> str:
    """As `evaluation`, by what the configuration says, before data is looked at."""
    if args.data_path:
        shares = [float(share) for share in args.split.replace("/", ",").split(",")]
        valid, test = (len(shares) > place and shares[place] > 0 for place in (1, 2))
    else:
        valid, test = bool(args.valid_data_paths), bool(args.test_data_paths)
    return evaluation(args, [*[UNNAMED] * valid, *validation_sets(args)], test=test)


def _samples(args: NeoXArgs, sets: Sequence[str], *, test: bool) -> str:
    if args.eval_iters == 0:
        return "none: eval_iters is 0"
    amount = f"{args.eval_iters} batches of {args.train_batch_size} samples"
    tested = [f"test after training, {amount}"] if test else []
    if not sets:
        return "; ".join([f"none while training: {_why_none(args)}", *tested])
    empty = [f"{name} holds no documents" for name in validation_sets(args) if name not in sets]
    return "; ".join([f"{', '.join(sets)} {_when(args)}, {amount}{' each' if len(sets) > 1 else ''}", *empty, *tested])


def _tasks(args: NeoXArgs) -> list[str]:
    if not args.eval_tasks:
        return []
    interval = f"every {args.eval_tasks_interval} iterations and " if args.eval_tasks_interval else ""
    return [f"tasks {', '.join(args.eval_tasks)} {interval}after training"]


def _curriculum_steps(args: NeoXArgs) -> int:
    """Steps after which the sequence length stays."""
    settings = (args.curriculum_learning or {})["schedule_config"]
    last: int = settings["total_curriculum_step"] if "max_step" not in settings else max([0, *settings["max_step"]]) + 1
    return last


def _when(args: NeoXArgs) -> str:
    if args.eval_interval == 0 or args.eval_interval > (args.train_iters or args.eval_interval):
        return f"after training only (eval_interval is {args.eval_interval})"
    return f"every {args.eval_interval} iterations and after training"


def _why_none(args: NeoXArgs) -> str:
    if args.data_path:
        return f'split "{args.split}" leaves no documents for validation'
    return "valid_data_paths is empty" if not args.valid_data_paths else "the validation data holds no documents"
