"""What DeepSpeed 0.19.8 holds of weights, gradients and optimizer states on one device, in bytes, as this framework configures it.

Three kinds of optimizer (see `megatron.engine.zero_state`), each with the parameters of a stage in at most two groups, decayed and not:

    BF16_Optimizer                 bfloat16 at stages 0 and 1: fp32 gradients of all parameters, always there
    DeepSpeedZeroOptimizer         fp32 and fp16 at stages 0 and 1, all at stage 2: gradients come with the backward pass
    DeepSpeedZeroOptimizer_Stage3  every parameter divided by itself; small ones stay gathered

Stage 0 runs as stage 1. In every kind the weights that are trained (model precision) are one flat tensor a group, padded to a multiple
of twice the data-parallel size, and each process has its part of the fp32 copies and of the moments, also in an fp32 model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from megatron.neox_arguments.arguments import NeoXArgs
from megatron.planning.layout import Layout
from megatron.planning.shapes import TensorShape
from megatron.planning.sizes import NUMBER_BYTES, WIDE

DEFAULT_BUCKET = 500_000_000
LARGEST_FLATTENED = 500_000_000
"""Elements after which DeepSpeed's plain all-reduce begins another buffer."""
STAGE3_PERSISTENT = 100_000
STAGE3_REUSE_DISTANCE = 1_000_000_000
STAGE3_PREFETCH = 50_000_000

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


def model_state(
    args: NeoXArgs, layout: Layout, tensors: Sequence[tuple[TensorShape, int]], *, tied: int = 0
) -> ModelState:
    """The state of a stage with the parameters `tensors`: each one, and how many there are of it.

    tied: local elements of a parameter that two layers of the stage share.
    """
    number = NUMBER_BYTES[args.precision]
    local = [(tensor, tensor.local_elements(layout.tensor), count) for tensor, count in tensors]
    trained = [(tensor.is_decayed, size, count) for tensor, size, count in local if tensor.is_trained]
    frozen = sum(size * count for tensor, size, count in local if not tensor.is_trained)
    wide = sum(size * count for tensor, size, count in local if tensor.is_fp32) * (WIDE - number)
    kind = _Kind.of(args, layout, trained, tied)
    if layout.zero_stage >= 3:
        state = _stage3(args, kind, trained)
    elif args.precision == "bfloat16" and layout.zero_stage < 2 and not kind.offloads:
        state = _bf16(args, layout, kind)
    elif layout.zero_stage == 2:
        state = _stage2(layout, kind)
    else:
        state = _stage1(layout, kind)
    return replace(state, weights=state.weights + frozen * number + wide)


@dataclass(frozen=True)
class _Kind:
    """What the kinds have in common. groups: padded elements of each; part: elements of this process; bucket: of one reduction; buffers:
    buckets that contiguous gradients move into; cast: bytes of a number in another format on the way, 0 = none; largest: elements of the
    largest parameter; tied: bytes of the second gradient of a parameter that two layers share: the two meet in the last hook."""

    number: int
    groups: tuple[int, ...]
    part: int
    bucket: int
    buffers: int
    cast: int
    moments: float
    offloads: bool
    data: int
    largest: int
    tied: int

    @classmethod
    def of(cls, args: NeoXArgs, layout: Layout, trained: Sequence[tuple[bool, int, int]], tied: int) -> _Kind:
        sizes = [0, 0]
        for is_decayed, size, count in trained:
            sizes[is_decayed] += size * count
        groups = tuple(_round_up(size, 2 * layout.data) for size in reversed(sizes) if size)
        elements = sum(groups)
        zero = args.zero_optimization
        number = NUMBER_BYTES[args.precision]
        bucket = min(int(zero.get("reduce_bucket_size", DEFAULT_BUCKET)), elements)
        overlaps = zero.get("overlap_comm")
        overlaps = layout.zero_stage == 3 if overlaps is None else bool(overlaps)
        communicated = args.communication_data_type
        return cls(
            number=number,
            groups=groups,
            part=elements // layout.data,
            bucket=bucket,
            buffers=(2 if overlaps else 1) if zero.get("contiguous_gradients") else 0,
            cast=0 if number == WIDE or communicated == "fp32" else 2,
            moments=_moment_bytes(args),
            offloads=_offloads(args, "offload_optimizer") or bool(zero.get("cpu_offload")),
            data=layout.data,
            largest=max((size for _, size, _ in trained), default=0),
            tied=number * tied,
        )

    @property
    def elements(self) -> int:
        return sum(self.groups)

    @property
    def optimizer(self) -> int:
        """fp32 weights and moments of this process's part."""
        return 0 if self.offloads else round(self.part * (WIDE + self.moments))

    @property
    def share(self) -> float:
        return self.bucket / self.elements if self.elements else 1.0

    @property
    def is_split(self) -> bool:
        """Whether gradients take more than one bucket."""
        return self.bucket < self.elements


def _bf16(args: NeoXArgs, layout: Layout, kind: _Kind) -> ModelState:
    """All gradients in fp32, and while they last those of a backward pass in bf16; both are kept until the step is done."""
    kept, fresh = WIDE * kind.elements, kind.number * kind.elements
    first = kind.groups[0] if kind.groups else 0
    alone = len(kind.groups) == 1 or first > LARGEST_FLATTENED  # one tensor need not be copied to be flat
    flattened = first if alone else kind.elements
    exchange = flattened * (kind.cast + (0 if alone else WIDE))
    return ModelState(
        weights=kind.number * kind.elements,
        optimizer=kind.optimizer,
        resting=Held(kept),
        accumulating=Held(kept + (fresh if layout.accumulation > 1 else 0)),
        starting=Held(kept + (fresh if layout.accumulation > 1 else 0)),
        reducing=Held(kept + fresh, exchange),
        stepping=Held(kept + fresh),
        bucket_share=1.0,
    )


def _stage1(layout: Layout, kind: _Kind) -> ModelState:
    """fp32 gradients of all parameters, reduced bucket by bucket once the last backward pass is over, flattened for the step.

    With contiguous gradients they move into one or two buckets, from there the process's own part into a tensor of its own.
    """
    all_gradients, part = WIDE * kind.elements, WIDE * kind.part
    accumulated = all_gradients if layout.accumulation > 1 else 0
    copy = kind.bucket * (WIDE + kind.cast)
    stepping = Held(part if kind.number == WIDE or kind.buffers else all_gradients, part)
    buckets = kind.buffers * WIDE * kind.bucket
    if not kind.buffers:
        reducing = Held(all_gradients, copy)
    else:
        own = part if kind.is_split or kind.cast else 0
        moved = Held(own, buckets + copy)
        gathered = Held(all_gradients, buckets + (max(part - WIDE * kind.bucket, 0) if kind.is_split else 0))
        streams = not accumulated and kind.buffers > 1  # hooks reduce while the only backward pass runs
        reducing = (
            Held(moved.gradients + kind.tied, moved.buffers)
            if streams
            else max(moved, gathered, key=lambda held: held.gradients + held.buffers)
        )
    return ModelState(
        weights=kind.number * kind.elements,
        optimizer=kind.optimizer,
        resting=Held(0),
        accumulating=Held(accumulated, buckets if accumulated else 0),
        starting=Held(accumulated, buckets),
        reducing=reducing,
        stepping=stepping,
        bucket_share=1.0,
    )


def _stage2(layout: Layout, kind: _Kind) -> ModelState:
    """Gradients are reduced as soon as they fill a bucket; what remains is the process's part in fp32."""
    part, bucket = WIDE * kind.part, kind.number * kind.bucket
    # Half precision adds to one fp32 part; fp32 keeps what was accumulated and, once a bucket is done, what is new.
    parts = 1 if kind.number < WIDE else int(layout.accumulation > 1) + int(kind.is_split)
    own = parts * part
    fresh = kind.buffers * bucket if kind.buffers else bucket
    # In half precision a gradient is added to the fp32 part by way of a copy in fp32.
    added = WIDE * min(kind.largest, kind.part) if kind.number < WIDE else 0
    return ModelState(
        weights=kind.number * kind.elements,
        optimizer=kind.optimizer,
        resting=Held(0),
        accumulating=Held(part if layout.accumulation > 1 else 0),
        starting=Held(part if layout.accumulation > 1 else 0, kind.buffers * bucket),
        reducing=Held(own + (kind.tied if kind.is_split else 0), fresh + bucket + added),
        stepping=Held(part, part if kind.number == WIDE else 0),
        bucket_share=kind.share,
    )


def _stage3(args: NeoXArgs, kind: _Kind, trained: Sequence[tuple[bool, int, int]]) -> ModelState:
    """Parts of weights and fp32 gradients; parameters below a threshold also whole; one bucket, kept when gradients are contiguous."""
    threshold = int(args.zero_optimization.get("stage3_param_persistence_threshold", STAGE3_PERSISTENT))
    part = sum(math.ceil(size / kind.data) * count for _, size, count in trained)
    whole = sum(size * count for _, size, count in trained if size < threshold)
    divided = sum(size * count for _, size, count in trained) - whole
    bucket = kind.number * kind.bucket
    kept = bucket if kind.buffers else 0
    gradients = WIDE * part
    optimizer = 0 if kind.offloads else round(part * (WIDE + kind.moments))
    own = 0 if _offloads(args, "offload_param") else part
    running = Held(gradients, kept + kind.number * _gathered(args, divided))
    return ModelState(
        weights=kind.number * (own + whole),
        optimizer=optimizer,
        resting=Held(gradients, kept),
        accumulating=running,
        starting=running,
        reducing=Held(gradients + (kind.tied if kind.is_split else 0), 3 * bucket),
        stepping=Held(gradients, kept),
        bucket_share=kind.share,
    )


def _gathered(args: NeoXArgs, divided: int) -> int:
    """Elements that stage 3 holds gathered between forward and backward pass: those that are used again within a distance.

    divided: elements of the parameters that are not kept whole anyway.
    """
    zero = args.zero_optimization
    distance = int(zero.get("stage3_max_reuse_distance", STAGE3_REUSE_DISTANCE))
    prefetch = int(zero.get("stage3_prefetch_bucket_size", STAGE3_PREFETCH))
    return min(divided, distance // 2 + prefetch)


def _moment_bytes(args: NeoXArgs) -> float:
    if args.use_bnb_optimizer:
        return 2 * (1 + WIDE / EIGHT_BIT_BLOCK)
    return MOMENT_BYTES.get(args.optimizer_type, MOMENT_BYTES["adam"])


def _offloads(args: NeoXArgs, section: str) -> bool:
    return bool((args.zero_optimization.get(section) or {}).get("device", "none") != "none")


def _round_up(value: int, multiple: int) -> int:
    return math.ceil(value / multiple) * multiple
