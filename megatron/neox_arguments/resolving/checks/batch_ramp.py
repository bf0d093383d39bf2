"""Batches that grow (`rampup_batch_size`)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from megatron.neox_arguments.conflict import Conflict
from megatron.neox_arguments.derive import NEAR

if TYPE_CHECKING:
    from megatron.neox_arguments.resolving.draft import Draft


def check_batch_ramp(args: Draft) -> None:
    """Every batch of a ramp divides into micro-batches on all data-parallel ranks, and the last increment reaches train_batch_size."""
    if args.rampup_batch_size is None:
        return
    start, increment, samples = args.rampup_batch_size
    row, full = args.train_micro_batch_size_per_gpu * args.data_parallel_size, args.train_batch_size
    if start > full:
        reason = "the ramp begins above the batch that it leads to"
    elif start % row or increment % row:
        reason = (
            f"a batch grows by micro-batches on every data-parallel rank, so the first batch and the increment are multiples of {row} "
            "(micro-batch x data-parallel size)"
        )
    elif (full - start) % increment:
        reason = f"increments of {increment} do not lead from {start} to {full}"
    else:
        return
    first, step = _nearest_ramp(start, increment, row, full)
    raise Conflict(("rampup_batch_size", "train_batch_size"), f"{reason}; write [{first}, {step}, {samples}]")


def _nearest_ramp(start: int, increment: int, row: int, full: int) -> tuple[int, int]:
    """The legal first batch and increment nearest to these; `full` is a multiple of `row`."""
    first = min(max(round(start / row), 1) * row, full)
    rows = (full - first) // row
    small = [divisor for divisor in range(1, min(math.isqrt(rows), NEAR) + 1) if rows % divisor == 0] or [1]
    divisors = [*small, *(rows // divisor for divisor in small if rows)]
    return first, min((divisor * row for divisor in divisors), key=lambda step: abs(step - increment))
