"""How many samples each step of a run takes: as many as any other, or more and more of them (`rampup_batch_size`).

A schedule is a pure function of the step: what reads data, counts samples or measures speed asks it, and nothing has to be saved. In a
ramp of [start, increment, samples] up to the full batch B there are n = (B - start) / increment increments, evenly spread over the
samples, as in Megatron: the step that begins after c samples takes

    start + increment * floor(c * n / samples)     while c < samples,
    B                                              afterwards.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from megatron.neox_arguments.arguments import NeoXArgs


@dataclass(frozen=True)
class Stage:
    """From `first_step` on, which begins after `first_sample` samples, each step takes `batch` samples."""

    first_step: int
    first_sample: int
    batch: int


@dataclass(frozen=True)
class BatchSchedule:
    """The batches of a run, over all ranks; steps count from 0. Stages are in order and the last one never ends."""

    stages: tuple[Stage, ...]

    @classmethod
    def constant(cls, batch: int) -> BatchSchedule:
        """Every step takes `batch` samples."""
        return cls((Stage(0, 0, batch),))

    @classmethod
    def ramp_up(cls, *, start: int, increment: int, samples: int, full: int) -> BatchSchedule:
        """From `start` by `increment`, which divides the difference, to `full` within about `samples` samples."""
        stages, step, sample = [], 0, 0
        increments = (full - start) // increment
        while increments and sample < samples:
            done = sample * increments // samples
            batch = start + done * increment
            next_increment = -(-(done + 1) * samples // increments)
            stages.append(Stage(step, sample, batch))
            steps = -((sample - next_increment) // batch)
            step, sample = step + steps, sample + steps * batch
        return cls((*stages, Stage(step, sample, full)))

    def batch_of(self, step: int) -> int:
        """Samples that step number `step` takes."""
        return self._stage(step).batch

    def samples_before(self, step: int) -> int:
        """Samples that the steps before number `step` take; so it takes those from this number on."""
        stage = self._stage(step)
        return stage.first_sample + (step - stage.first_step) * stage.batch

    def steps_within(self, samples: int) -> int:
        """How many whole steps the first `samples` samples are enough for."""
        index = bisect_right(self.stages, samples, key=lambda stage: stage.first_sample) - 1
        stage = self.stages[max(index, 0)]
        return stage.first_step + (samples - stage.first_sample) // stage.batch

    def going_on(self, *, step: int, samples: int) -> BatchSchedule:
        """The same batches in a run that has taken `samples` samples before `step`, because its earlier steps had others."""
        shift = samples - self.samples_before(step)
        return BatchSchedule(tuple(replace(stage, first_sample=stage.first_sample + shift) for stage in self.stages))

    def _stage(self, step: int) -> Stage:
        return self.stages[bisect_right(self.stages, step, key=lambda stage: stage.first_step) - 1]


def batch_schedule(args: NeoXArgs) -> BatchSchedule:
    """The batches of a run from its beginning."""
    if args.rampup_batch_size is None:
        return BatchSchedule.constant(args.train_batch_size)
    start, increment, samples = args.rampup_batch_size
    return BatchSchedule.ramp_up(start=start, increment=increment, samples=samples, full=args.train_batch_size)


def least_batch(args: NeoXArgs) -> int:
    """The largest batch of which every batch of a run is a multiple."""
    first, increment, _ = args.rampup_batch_size or (args.train_batch_size, args.train_batch_size, 0)
    return math.gcd(args.train_batch_size, first, increment)
