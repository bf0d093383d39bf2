"""How busy the stages of a pipeline are, measured in the steps that are shown."""

from __future__ import annotations

from dataclasses import dataclass

from megatron.engine.protocol import Engine
from megatron.mpu.collectives import all_gather_objects


@dataclass(frozen=True)
class PipelineTimes:
    """bubble: share of the time from the begin of a step to the end of its last backward pass in which a stage, on average, computed
    nothing; expected: the same by the schedule, if all passes took as long and messages no time; stage_seconds: what each stage computed."""

    bubble: float
    expected: float
    stage_seconds: tuple[float, ...]


def expected_bubble(stages: int, micro_batches: int) -> float:
    """Idle share of one forward, one backward in turn: (p - 1) / (m + p - 1) (Narayanan et al., 2021, give it over the ideal time instead)."""
    return (stages - 1) / (micro_batches + stages - 1)


class PipelineMeter:
    """Times the first step it sees and every one whose iteration is a multiple of `interval`; nothing without a pipeline."""

    def __init__(self, engine: Engine, *, interval: int) -> None:
        self._pipe = engine.groups.pipe
        self._clock = engine.stage_clock if self._pipe.size > 1 else None
        self._interval = interval
        self._first = True
        self._running = False

    def begin(self, iteration: int) -> None:
        """The step of this iteration (counted from 1) begins."""
        if self._clock is not None and (self._first or iteration % self._interval == 0):
            self._clock.start()
            self._running, self._first = True, False

    def read(self, *, micro_batches: int) -> PipelineTimes | None:
        """The times of the step that has just ended, if it was timed (collective over the pipeline); those of this rank's pipeline."""
        if self._clock is None or not self._running:
            return None
        self._running = False
        stages = all_gather_objects(self._clock.read(), self._pipe)
        span, busy = max(stage.span for stage in stages), tuple(stage.busy for stage in stages)
        return PipelineTimes(
            bubble=1 - sum(busy) / (len(busy) * span),
            expected=expected_bubble(len(busy), micro_batches),
            stage_seconds=busy,
        )
