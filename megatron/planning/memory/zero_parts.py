"""What every kind of ZeRO optimizer is computed from: how many elements a process has of what, and what it holds at which moment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from megatron.neox_arguments.arguments import NeoXArgs
from megatron.planning.layout import Layout
from megatron.planning.memory.sizes import NUMBER_BYTES, WIDE

DEFAULT_BUCKET = 500_000_000
ACCUMULATOR_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
"""A number of the format that gradients accumulate in (`data_types.grad_accum_dtype`)."""

MOMENT_BYTES = {
    "adam": 8.0,
    "adamw": 8.0,
    "cpu_adam": 8.0,
    "cpu_torch_adam": 8.0,
    "lamb": 8.0,
    "onebitadam": 12.0,  # and the error of its compression
    "madgrad_wd": 12.0,
    "sm3": 4.0,  # momentum; its statistics are vectors
    "sgd": 4.0,
    "lion": 4.0,
    "muon": 4.0,
}
"""Bytes of optimizer state a value beside the fp32 weight, by optimizer type."""
EIGHT_BIT_BLOCK = 256
"""Values that share an fp32 scale in an 8-bit optimizer state."""


@dataclass(frozen=True)
class Held:
    """Bytes of gradients, and of buffers that go with them, at one moment of a step."""

    gradients: int
    buffers: int = 0

    def more(self, gradients: int) -> Held:
        """With further gradients."""
        return replace(self, gradients=self.gradients + gradients)


@dataclass(frozen=True)
class ModelState:
    """weights, optimizer: there all the time; resting: gradient memory between steps; accumulating: while the last micro-batch of a step
    runs forward; starting: when its backward pass has made the first gradient; reducing: when that pass ends and gradients are
    exchanged; stepping: during the update."""

    weights: int
    optimizer: int
    resting: Held
    accumulating: Held
    starting: Held
    reducing: Held
    stepping: Held
    bucket_share: float
    """Part of the gradients that one reduction takes: those of earlier parts are exchanged while activations are still there."""
    host: int = 0
    """Offloaded optimizer states, with the gradients they are updated by: in host memory."""


@dataclass(frozen=True)
class Parts:
    """What the kinds have in common.

    number, accumulator: bytes of a number of the model and of an accumulated gradient; groups: padded elements of each; part: elements
    of this process; bucket: of one reduction; buffers: buckets that contiguous gradients move into; cast: bytes of a number in another
    format on the way, 0 = none; moments: bytes of optimizer state a value; replicas: data-parallel x context-parallel size; largest: elements of the largest
    parameter; tied: bytes of the second gradient of a parameter that two layers share: the two meet in the last hook.
    """

    number: int
    accumulator: int
    groups: tuple[int, ...]
    part: int
    bucket: int
    buffers: int
    cast: int
    moments: float
    is_offloaded: bool
    replicas: int
    largest: int
    tied: int

    @classmethod
    def of(cls, args: NeoXArgs, layout: Layout, trained: Sequence[tuple[bool, int, int]], tied: int) -> Parts:
        sizes = [0, 0]
        for is_decayed, size, count in trained:
            sizes[is_decayed] += size * count
        groups = tuple(_round_up(size, 2 * layout.replicas) for size in reversed(sizes) if size)
        elements = sum(groups)
        zero = args.zero_optimization
        number = NUMBER_BYTES[args.precision]
        bucket = min(int(zero.get("reduce_bucket_size", DEFAULT_BUCKET)), elements)
        overlaps = zero.get("overlap_comm")
        overlaps = layout.zero_stage == 3 if overlaps is None else bool(overlaps)
        communicated = args.communication_data_type
        is_offloaded = offloads(args, "offload_optimizer") or bool(zero.get("cpu_offload"))
        return cls(
            number=number,
            accumulator=ACCUMULATOR_BYTES.get(str((args.data_types or {}).get("grad_accum_dtype")), WIDE),
            groups=groups,
            part=elements // layout.replicas,
            bucket=bucket,
            buffers=(2 if overlaps else 1) if zero.get("contiguous_gradients") or is_offloaded else 0,
            cast=0 if number == WIDE or communicated == "fp32" else 2,
            moments=_moment_bytes(args),
            is_offloaded=is_offloaded,
            replicas=layout.replicas,
            largest=max((size for _, size, _ in trained), default=0),
            tied=number * tied,
        )

    @property
    def elements(self) -> int:
        return sum(self.groups)

    @property
    def optimizer(self) -> int:
        """fp32 weights and moments of this process's part."""
        return 0 if self.is_offloaded else round(self.part * (WIDE + self.moments))

    @property
    def host(self) -> int:
        """Offloaded fp32 weights, moments and fp32 gradients of this process's part, and the new weights on their way to the device."""
        return round(self.part * (2 * WIDE + self.moments + self.number)) if self.is_offloaded else 0

    @property
    def share(self) -> float:
        return self.bucket / self.elements if self.elements else 1.0

    @property
    def is_split(self) -> bool:
        """Whether gradients take more than one bucket."""
        return self.bucket < self.elements


def _moment_bytes(args: NeoXArgs) -> float:
    if args.use_bnb_optimizer:
        return 2 * (1 + WIDE / EIGHT_BIT_BLOCK)
    return MOMENT_BYTES.get(args.optimizer_type, MOMENT_BYTES["adam"])


def offloads(args: NeoXArgs, section: str) -> bool:
    return bool((args.zero_optimization.get(section) or {}).get("device", "none") != "none")


def _round_up(value: int, multiple: int) -> int:
    return math.ceil(value / multiple) * multiple
