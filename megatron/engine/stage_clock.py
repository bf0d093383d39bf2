"""How long a pipeline stage computes in a step: the time between the begin and the end of its forward and backward passes.

On a GPU events are put into the stream and read after the step; on a CPU a pass is over when its call returns. Nothing waits for either.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class StageTime:
    """Seconds of one step: computing, and from the begin of the step to the end of the last pass."""

    busy: float
    span: float


class StageClock:
    """Times the steps it is started for; in all others a pass costs one comparison more."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._running = False
        self._marks: list[Any] = []

    def start(self) -> None:
        """Time the step that begins now."""
        self._running, self._marks = True, [self._mark()]

    def read(self) -> StageTime:
        """What the step took; it must be over, and the device must have computed its loss."""
        self._running = False
        begin, *marks = self._marks
        passes = list(zip(marks[::2], marks[1::2], strict=True))
        busy = sum(self._seconds(first, last) for first, last in passes)
        return StageTime(busy, self._seconds(begin, passes[-1][1]) if passes else 0.0)

    def timed(self, instruction: Callable[..., None]) -> Callable[..., None]:
        """The instruction of a pipeline schedule, with its time taken."""

        def run(*arguments: Any, **options: Any) -> None:
            if self._running:
                self._marks.append(self._mark())
            instruction(*arguments, **options)
            if self._running:
                self._marks.append(self._mark())

        return run

    def _mark(self) -> Any:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _seconds(self, first: Any, last: Any) -> float:
        if self._device.type != "cuda":
            return float(last - first)
        last.synchronize()
        return float(first.elapsed_time(last)) / 1000
