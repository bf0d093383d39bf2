"""How many tokens of each sample a step trains on: all, or few at first and more and more of them (`curriculum_learning`).

The length of step k, counted from 0, is that of DeepSpeed's curriculum scheduler for its step g = k + 1, as in GPT-NeoX. With lengths
from m (min_difficulty) to M (max_difficulty) in multiples of d (difficulty_step) over T steps (total_curriculum_step):

    fixed_root       min(M, max(m rounded up to a multiple of d, floor(m + (M - m) (g / T)^(1 / root_degree)) rounded down to one))
    fixed_linear     the same with the degree 1
    fixed_discrete   difficulty[i] for the first i with g <= max_step[i], beyond all of them the last difficulty

Lengths never fall, and what of a sample lies behind the length is not trained on.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from megatron.neox_arguments.batch_schedule import batch_schedule

if TYPE_CHECKING:
    from megatron.neox_arguments.arguments import NeoXArgs


class SequenceSchedule(Protocol):
    """The lengths of a run's sequences."""

    def length_of(self, step: int) -> int:
        """Tokens of each sample that step number `step` trains on."""
        ...


@dataclass(frozen=True)
class FullLength:
    """All tokens in every step."""

    length: int

    def length_of(self, step: int) -> int:
        """As `SequenceSchedule.length_of`."""
        return self.length


@dataclass(frozen=True)
class RootLength:
    """fixed_root, and with degree 1 fixed_linear."""

    shortest: int
    longest: int
    total_steps: int
    multiple: int
    degree: float = 1.0

    def length_of(self, step: int) -> int:
        """As `SequenceSchedule.length_of`."""
        progress: float = (float(step + 1) / self.total_steps) ** (1.0 / self.degree)
        length = math.floor(progress * (self.longest - self.shortest) + self.shortest)
        first = math.ceil(self.shortest / self.multiple) * self.multiple
        return min(max(length // self.multiple * self.multiple, first), self.longest)


@dataclass(frozen=True)
class DiscreteLength:
    """fixed_discrete; `last_steps` has one element fewer than `lengths`."""

    lengths: tuple[int, ...]
    last_steps: tuple[int, ...]

    def length_of(self, step: int) -> int:
        """As `SequenceSchedule.length_of`."""
        return self.lengths[bisect_left(self.last_steps, step + 1)]


def sequence_schedule(args: NeoXArgs) -> FullLength | RootLength | DiscreteLength:
    """The lengths of a run, from a checked configuration."""
    curriculum = args.curriculum_learning
    if not (curriculum and curriculum.get("enabled")):
        return FullLength(args.seq_length)
    settings = curriculum["schedule_config"]
    if curriculum.get("schedule_type") == "fixed_discrete":
        return DiscreteLength(tuple(map(int, settings["difficulty"])), tuple(map(int, settings["max_step"])))
    return RootLength(
        int(curriculum["min_difficulty"]),
        int(curriculum["max_difficulty"]),
        int(settings["total_curriculum_step"]),
        int(settings["difficulty_step"]),
        settings["root_degree"] if curriculum.get("schedule_type") == "fixed_root" else 1.0,
    )


def tokens_before(args: NeoXArgs, step: int) -> int:
    """Tokens that the steps before number `step` of a run train on."""
    batches, lengths = batch_schedule(args), sequence_schedule(args)
    return sum(
        (batches.samples_before(end) - batches.samples_before(first)) * length
        for first, end, length in runs_of_length(lengths, range(step))
    )


def runs_of_length(lengths: SequenceSchedule, steps: range) -> Iterator[tuple[int, int, int]]:
    """(first, end, length) of each longest range among `steps` that have the same length."""
    first = steps.start
    while first < steps.stop:
        length = lengths.length_of(first)
        end = bisect_right(range(steps.stop), length, lo=first, key=lengths.length_of)
        yield first, end, length
        first = end
