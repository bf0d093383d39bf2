"""What DeepSpeed 0.19.8 holds of weights, gradients and optimizer states on one device, in bytes, as this framework configures it.

Three kinds of optimizer (see `megatron.engine.zero_state`), each with the parameters of a stage in at most two groups, decayed and not:

    BF16_Optimizer                 bfloat16 at stages 0 and 1: fp32 gradients of all parameters, always there
    DeepSpeedZeroOptimizer         fp32 and fp16 at stages 0 and 1, all at stage 2: gradients come with the backward pass
    DeepSpeedZeroOptimizer_Stage3  every parameter divided by itself; small ones stay gathered

Stage 0 runs as stage 1. (What is held without DeepSpeed is in `without_deepspeed.py`.) In all of them the weights that are trained (model precision) are one flat tensor a group, padded to a multiple
of twice the number of replicas (data x context ranks), and each process has its part of the fp32 copies and of the moments, also in an fp32 model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from megatron.neox_arguments.arguments import NeoXArgs
from megatron.planning.layout import Layout
from megatron.planning.memory.sizes import NUMBER_BYTES, WIDE
from megatron.planning.memory.without_deepspeed import flat_state
from megatron.planning.memory.zero_parts import Held, ModelState, Parts, offloads
from megatron.planning.model.shapes import TensorShape

LARGEST_FLATTENED = 500_000_000
"""Elements after which DeepSpeed's plain all-reduce begins another buffer."""
STAGE3_PERSISTENT = 100_000
STAGE3_REUSE_DISTANCE = 1_000_000_000
STAGE3_PREFETCH = 50_000_000


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
    parts = Parts.of(args, layout, trained, tied)
    if not args.deepspeed:
        state = flat_state(args, layout, parts, trained)
    elif layout.zero_stage >= 3:
        state = _stage3(args, parts, trained)
    elif layout.zero_stage < 2 and _is_bf16_optimizer(args, parts):
        state = _bf16(layout, parts)
    elif layout.zero_stage == 2:
        state = _stage2(layout, parts)
    else:
        state = _stage1(layout, parts)
    return replace(state, weights=state.weights + frozen * number + wide)


def _is_bf16_optimizer(args: NeoXArgs, parts: Parts) -> bool:
    return args.precision == "bfloat16" and parts.accumulator == WIDE and not parts.is_offloaded


def _bf16(layout: Layout, parts: Parts) -> ModelState:
    """All gradients in fp32, and while they last those of a backward pass in bf16; both are kept until the step is done."""
    kept, fresh = WIDE * parts.elements, parts.number * parts.elements
    first = parts.groups[0] if parts.groups else 0
    alone = len(parts.groups) == 1 or first > LARGEST_FLATTENED  # one tensor need not be copied to be flat
    flattened = first if alone else parts.elements
    exchange = flattened * (parts.cast + (0 if alone else WIDE))
    return ModelState(
        weights=parts.number * parts.elements,
        optimizer=parts.optimizer,
        resting=Held(kept),
        accumulating=Held(kept + (fresh if layout.accumulation > 1 else 0)),
        starting=Held(kept + (fresh if layout.accumulation > 1 else 0)),
        reducing=Held(kept + fresh, exchange),
        stepping=Held(kept + fresh),
        bucket_share=1.0,
    )


def _stage1(layout: Layout, parts: Parts) -> ModelState:
    """Accumulated gradients of all parameters, reduced bucket by bucket once the last backward pass is over, flattened for the step.

    With contiguous gradients they move into one or two buckets, from there the process's own part into a tensor of its own.
    """
    number = parts.accumulator
    is_separate = number != parts.number  # then gradients accumulate beside those that autograd makes
    all_gradients, part = number * parts.elements, number * parts.part
    accumulated = all_gradients if layout.accumulation > 1 else 0
    copy = parts.bucket * (number + (parts.cast if is_separate else 0))
    stepping = Held(all_gradients if is_separate and not parts.buffers else part, WIDE * parts.part)
    buckets = parts.buffers * number * parts.bucket
    if not parts.buffers:
        reducing = Held(all_gradients, copy)
    else:
        own = part if parts.is_split or is_separate else 0
        moved = Held(own, buckets + copy)
        gathered = Held(all_gradients, buckets + (max(part - number * parts.bucket, 0) if parts.is_split else 0))
        streams = not accumulated and parts.buffers > 1  # hooks reduce while the only backward pass runs
        reducing = (
            Held(moved.gradients + parts.tied, moved.buffers)
            if streams
            else max(moved, gathered, key=lambda held: held.gradients + held.buffers)
        )
    return ModelState(
        weights=parts.number * parts.elements,
        optimizer=parts.optimizer,
        resting=Held(0),
        accumulating=Held(accumulated, buckets if accumulated else 0),
        starting=Held(accumulated, buckets),
        reducing=reducing,
        stepping=stepping,
        bucket_share=1.0,
        host=parts.host,
    )


def _stage2(layout: Layout, parts: Parts) -> ModelState:
    """Gradients are reduced as soon as they fill a bucket; what remains is the process's part of them."""
    part, bucket = (0 if parts.is_offloaded else parts.accumulator * parts.part), parts.number * parts.bucket
    # Where gradients accumulate in another format there is one part; else what was accumulated and, once a bucket is done, what is new.
    is_separate = parts.accumulator != parts.number
    copies = 1 if is_separate else int(layout.accumulation > 1) + int(parts.is_split)
    own = copies * part
    fresh = parts.buffers * bucket if parts.buffers else bucket
    # A gradient in another format is added to the part by way of a copy.
    added = parts.accumulator * min(parts.largest, parts.part) if is_separate else 0
    return ModelState(
        weights=parts.number * parts.elements,
        optimizer=parts.optimizer,
        resting=Held(0),
        accumulating=Held(part if layout.accumulation > 1 else 0),
        starting=Held(part if layout.accumulation > 1 else 0, parts.buffers * bucket),
        reducing=Held(own + (parts.tied if parts.is_split else 0), fresh + bucket + added),
        stepping=Held(part, 0 if is_separate or parts.is_offloaded else WIDE * parts.part),
        bucket_share=parts.share,
        host=parts.host,
    )


def _stage3(args: NeoXArgs, parts: Parts, trained: Sequence[tuple[bool, int, int]]) -> ModelState:
    """Parts of weights and fp32 gradients; parameters below a threshold also whole; one bucket, kept when gradients are contiguous."""
    threshold = int(args.zero_optimization.get("stage3_param_persistence_threshold", STAGE3_PERSISTENT))
    part = sum(math.ceil(size / parts.replicas) * count for _, size, count in trained)
    whole = sum(size * count for _, size, count in trained if size < threshold)
    divided = sum(size * count for _, size, count in trained) - whole
    bucket = parts.number * parts.bucket
    kept = bucket if parts.buffers else 0
    gradients = parts.accumulator * part
    optimizer, host = round(part * (WIDE + parts.moments)), 0
    if parts.is_offloaded:  # accumulated gradients go along with what they update, which has another copy of them
        optimizer, gradients, host = 0, 0, optimizer + gradients + WIDE * part
    own = 0 if offloads(args, "offload_param") else part
    running = Held(gradients, kept + parts.number * _gathered(args, divided))
    return ModelState(
        weights=parts.number * (own + whole),
        optimizer=optimizer,
        resting=Held(gradients, kept),
        accumulating=running,
        starting=running,
        reducing=Held(gradients + (parts.tied if parts.is_split else 0), 3 * bucket),
        stepping=Held(gradients, kept),
        bucket_share=parts.share,
        host=host,
    )


def _gathered(args: NeoXArgs, divided: int) -> int:
    """Elements that stage 3 holds gathered between forward and backward pass: those that are used again within a distance.

    divided: elements of the parameters that are not kept whole anyway.
    """
    zero = args.zero_optimization
    distance = int(zero.get("stage3_max_reuse_distance", STAGE3_REUSE_DISTANCE))
    prefetch = int(zero.get("stage3_prefetch_bucket_size", STAGE3_PREFETCH))
    return min(divided, distance // 2 + prefetch)
