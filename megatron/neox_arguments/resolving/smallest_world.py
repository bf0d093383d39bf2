"""The smallest number of processes that a configuration can run on, for looking at it without the machines it is meant for."""

from __future__ import annotations

import math
from typing import Any

from megatron.neox_arguments.keys.types import read_number
from megatron.neox_arguments.reading.legacy import modernise
from megatron.neox_arguments.reading.values import ConfigValues


def smallest_world(values: ConfigValues) -> int | None:
    """One copy of the model, or as many as the three batch sizes imply; None when the number of processes is written, or unclear."""
    modern, _ = modernise(values)

    def size(*names: str) -> int:
        """The first of these that is written, else 0."""
        written = [read_number(modern.value(name)) for name in names]
        return next((value for value in written if _is_size(value)), 0)

    if size("global_num_gpus", "world_size"):
        return None
    copy = math.prod(max(size(f"{part}_parallel_size"), 1) for part in ("pipe", "context", "model"))
    train, accumulation = size("train_batch_size"), size("gradient_accumulation_steps")
    in_copy = size("train_micro_batch_size_per_gpu", "batch_size") * accumulation
    return copy * max(train // in_copy, 1) if in_copy else copy


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
