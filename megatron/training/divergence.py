"""When a run is given up: its loss is no number any more, and stays so."""

from __future__ import annotations

import math

from megatron.engine.protocol import StepResult
from megatron.errors import NeoXError

PATIENCE = 10
"""Steps in a row without a finite loss that are put down to unlucky samples, as long as the optimizer skips them."""


class DivergenceGuard:
    """Ends a run that has diverged, before it spends more time and replaces good checkpoints by worthless ones.

    A step that was skipped has left the weights alone, so the next samples may well go through; a step that was not has put
    numbers that are none into the weights.
    """

    def __init__(self) -> None:
        self._in_a_row = 0

    def check(self, iteration: int, result: StepResult) -> None:
        """Judge the outcome of an iteration (counted from 1). Raises NeoXError when the run has diverged."""
        self._in_a_row = 0 if math.isfinite(result.loss) else self._in_a_row + 1
        if self._in_a_row == 0 or (result.skipped and self._in_a_row < PATIENCE):
            return
        which = f"iteration {iteration} is" if self._in_a_row == 1 else f"the last {self._in_a_row} iterations was"
        raise NeoXError(
            f"the loss of {which} {result.loss}: the run has diverged and stops without saving; lower the learning rate, lengthen "
            "the warm-up or use bfloat16, and start again from a checkpoint of before"
        )
