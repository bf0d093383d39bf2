"""What grows from step to step in a run of a few iterations as it did in a long one. Pure; used by shrink.py."""

from __future__ import annotations

from typing import Any

from megatron.neox_arguments.arguments import NeoXArgs
from megatron.neox_arguments.shrinking.smaller_run import SmallLayout


def smaller_schedules(
    args: NeoXArgs, *, layout: SmallLayout, micro: int, accumulation: int, length: int
) -> dict[str, Any]:
    """New values by key path, for batches of `accumulation` micro-batches of `micro` samples of `length` tokens."""
    changes: dict[str, Any] = {}
    row = micro * layout.data
    if args.rampup_batch_size is not None:
        changes["rampup_batch_size"] = [row, row, row * accumulation]
    if (args.curriculum_learning or {}).get("enabled"):
        ranks = layout.context * layout.tensor
        short = length // 2 if length // 2 % ranks == 0 and length % 2 == 0 else length
        changes |= _curriculum(args.curriculum_learning or {}, short, length)
    return changes


def _curriculum(section: dict[str, Any], short: int, length: int) -> dict[str, Any]:
    """From `short` to `length` in the second step."""
    if section.get("schedule_type") == "fixed_discrete":
        rises = short < length
        schedule: dict[str, Any] = {"difficulty": [short, length] if rises else [length], "max_step": [1] * rises}
    else:
        schedule = {**section["schedule_config"], "total_curriculum_step": 2, "difficulty_step": short}
    values = {"min_difficulty": short, "max_difficulty": length, "schedule_config": schedule}
    return {f"curriculum_learning.{key}": value for key, value in values.items()}
