"""The legal layouts of a model on a cluster: the fastest that fit, and the one nearest to a given layout.

All keep the global batch. They are ordered by the estimate of `throughput` and looked at in that order, memory and the configuration's
own checks last, because the estimate costs microseconds. Of layouts that differ in the micro-batch alone the largest that fits is found by bisection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from megatron.errors import ConfigError
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.reading.load import apply_overrides
from megatron.neox_arguments.reading.values import ConfigValues
from megatron.planning.hardware.devices import Cluster, Device
from megatron.planning.layout import Layout
from megatron.planning.memory.stage_memory import CUDA_ALLOWANCE, StageMemory, peak_memory
from megatron.planning.search.candidates import LARGEST_MICRO_BATCH, candidates, changes, divisors, with_micro_batch
from megatron.planning.search.throughput import StepTime, step_time
from megatron.planning.search.words import words_for
from megatron.planning.search.work import Work

COMMUNICATION = 0.03
"""Share of a device's memory kept free, beside CUDA_ALLOWANCE, for the buffers of the communication library and fragmentation."""

LARGEST_PRINTED = 4096
"""Micro-batches beyond this are not looked for."""


@dataclass(frozen=True)
class Proposal:
    """A layout that fits, with what it takes and the words that ask for it."""

    layout: Layout
    memory: StageMemory
    time: StepTime
    words: tuple[str, ...]


def usable_bytes(device: Device) -> int:
    """Memory that a run may plan with."""
    return int(device.memory_bytes * (1 - COMMUNICATION)) - CUDA_ALLOWANCE


class Search:
    """The layouts of one model on one cluster. values: the config, whose legal arguments on this cluster, perhaps after changes to its
    layout, are `args`; given: the layout in `values`, None when it is not legal here; vocab_size: rows of the model's vocabulary
    without padding."""

    def __init__(
        self, args: NeoXArgs, *, values: ConfigValues, cluster: Cluster, vocab_size: int, given: Layout | None
    ) -> None:
        self.args, self.values, self.cluster, self.vocab_size, self.given = args, values, cluster, vocab_size, given
        self.usable = usable_bytes(cluster.device)
        self._work = Work.of(args, vocab_size=vocab_size)
        self._legal: dict[Layout, bool] = {}
        self._families: dict[Layout, int] = {}

    def fastest(self, count: int) -> tuple[Proposal, ...]:
        """Up to `count` layouts that fit, fastest first, no two with the same grid and ZeRO stage."""
        found: dict[tuple[int, int, int], Proposal] = {}
        for layout in sorted(self._candidates(), key=self._preference):
            kind = (layout.stages, layout.tensor, layout.zero_stage)
            if kind not in found and (proposal := self._propose(layout)) is not None:
                found[kind] = proposal
                if len(found) == count:
                    break
        return tuple(found.values())

    def nearest(self, given: Layout) -> Proposal | None:
        """The layout that fits with the fewest settings other than `given`'s, the fastest of those; None when nothing fits."""
        by_distance = sorted(
            self._candidates(),
            key=lambda layout: (len(changes(given, layout)), self._preference(layout)),
        )
        return next(filter(None, map(self._propose, by_distance)), None)

    def least_memory(self) -> tuple[Layout, StageMemory] | None:
        """The legal layout that needs least memory, whether it fits or not; None when none is legal."""
        smallest = [layout for layout in candidates(self.args, self.cluster) if layout == self._smallest(layout)]
        found: list[tuple[Layout, StageMemory]] = []
        for layout in smallest:
            with suppress(ConfigError):  # the layers cannot be divided like this
                found.append((layout, self.memory(layout)))
        by_memory = sorted(found, key=lambda pair: pair[1].total)
        return next((pair for pair in by_memory if self._is_legal(pair[0])), None)

    def memory(self, layout: Layout) -> StageMemory:
        """What a device of the fullest stage needs."""
        return peak_memory(self.args, layout, vocab_size=self.vocab_size)

    def time(self, layout: Layout) -> StepTime:
        """The estimated time of a step."""
        return step_time(self._work, layout, self.cluster)

    def fits(self, layout: Layout) -> bool:
        """Whether the layers can be divided like this, and every device has enough memory."""
        try:
            return self.memory(layout).total <= self.usable
        except ConfigError:
            return False

    def _candidates(self) -> Iterator[Layout]:
        """All layouts; none at once when even weights and optimizer, divided over all devices, are too much."""
        whole = self.memory(Layout())
        least = (whole.weights + whole.optimizer) // self.cluster.world_size
        yield from candidates(self.args, self.cluster) if least <= self.usable else ()

    def _propose(self, layout: Layout) -> Proposal | None:
        if not (self._may_fit(layout) and self.fits(layout) and self._is_legal(layout)):
            return None
        return Proposal(layout, self.memory(layout), self.time(layout), self._words(layout))

    def _may_fit(self, layout: Layout) -> bool:
        """Whether the micro-batch is not larger than the largest that fits, found by bisection. A step of a single micro-batch needs no
        memory for gradients of earlier ones, so it is a case of its own."""
        if layout.accumulation == 1:
            return True
        family = self._smallest(layout)
        if family not in self._families:
            sizes = divisors(family.accumulation, most=min(LARGEST_MICRO_BATCH, family.accumulation // 2))
            fitting = _bisect(sizes, lambda size: self.fits(with_micro_batch(family, size)))
            self._families[family] = sizes[fitting - 1] if fitting else 0
        return layout.micro_batch <= self._families[family]

    def _smallest(self, layout: Layout) -> Layout:
        return with_micro_batch(layout, 1)

    def _preference(self, layout: Layout) -> tuple[float, ...]:
        """Faster first; of equally fast ones, what is simpler."""
        simplicity = (layout.stages, layout.tensor, layout.zero_stage, layout.recompute, -layout.micro_batch)
        return (round(self.time(layout).total, 9), *map(float, simplicity))

    def _is_legal(self, layout: Layout) -> bool:
        """Whether the configuration's own checks accept the words of this layout (the micro-batch never matters), and give it."""
        family = self._smallest(layout)
        if family not in self._legal:
            try:
                values = apply_overrides(self.values, self._words(family))
                args = NeoXArgs.from_values(values, world_size=self.cluster.world_size, planning=True)
                self._legal[family] = _by_stages(Layout.of(args)) == _by_stages(family)
            except ConfigError:
                self._legal[family] = False
        return self._legal[family]

    def _words(self, layout: Layout) -> tuple[str, ...]:
        return words_for(layout, values=self.values, given=self.given)


def largest_micro_batch(search: Search, layout: Layout) -> int:
    """The largest micro-batch of this layout that fits, whether it divides the batch or not; 0 when not even 1 does."""
    samples = layout.micro_batch * layout.accumulation

    def fits(size: int) -> bool:
        return search.fits(replace(layout, micro_batch=size, accumulation=max(samples // size, 1)))

    several, single = range(1, samples // 2 + 1), range(samples // 2 + 1, max(samples, LARGEST_PRINTED) + 1)
    fitting = _bisect(single, fits)
    return single[fitting - 1] if fitting else _bisect(several, fits)


def _by_stages(layout: Layout) -> Layout:
    """The layout with its stages counted, so that no pipeline (0) and a pipeline of one stage are the same."""
    return replace(layout, pipeline=layout.stages)


def _bisect(ascending: Sequence[int], fits: Callable[[int], bool]) -> int:
    """How many of the ascending sizes fit; a size fits when a larger one does."""
    if not ascending or not fits(ascending[0]):  # mostly so in a search
        return 0
    low, high = 1, len(ascending)
    while low < high:
        middle = (low + high) // 2
        if fits(ascending[middle]):
            low = middle + 1
        else:
            high = middle
    return low
