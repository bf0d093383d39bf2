"""When a run is given up: its loss is no number any more and stays so, or the optimizer skips every step."""

from __future__ import annotations

import math

from megatron.engine.protocol import StepResult
from megatron.errors import NeoXError

PATIENCE = 10
"""Steps in a row without a finite loss that are put down to unlucky samples, as long as the optimizer skips them."""

SKIPPED_LIMIT = 100
"""Skipped steps in a row after which a loss scale will not find its level any more: halving once a step, it has passed every fp16 value."""


class DivergenceGuard:
    """Ends a run that has diverged, before it spends more time and replaces good checkpoints by worthless ones.

    A step that was skipped has left the weights alone, so the next samples may well go through; a step that was not has put
    numbers that are none into the weights.
    """

    def __init__(self) -> None:
        self._in_a_row = 0
        self._skipped_in_a_row = 0

    def check(self, iteration: int, result: StepResult) -> None:
        """Judge the outcome of an iteration (counted from 1). Raises NeoXError when the run has diverged."""
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if result.skipped else 0
        if self._skipped_in_a_row == SKIPPED_LIMIT:
            raise NeoXError(
                f"the optimizer has skipped the last {SKIPPED_LIMIT} steps because gradients overflowed (loss scale {result.loss_scale:g}): "
                "nothing is learned this way; lower loss_scale, leave it out for a dynamic one, or use bfloat16"
            )
        self._in_a_row = 0 if math.isfinite(result.loss) else self._in_a_row + 1
        if self._in_a_row == 0 or (result.skipped and self._in_a_row < PATIENCE):
            return
        which = f"iteration {iteration} is" if self._in_a_row == 1 else f"the last {self._in_a_row} iterations was"
        raise NeoXError(
            f"the loss of {which} {result.loss}: the run has diverged and stops without saving; lower the learning rate, lengthen "
            "the warm-up or use bfloat16, and start again from a checkpoint of before"
        )
