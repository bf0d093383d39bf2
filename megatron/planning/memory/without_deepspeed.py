"""What training without DeepSpeed holds of weights, gradients and optimizer states on one device (see `megatron.engine.native`).

Weights in the model's precision and fp32 gradients of all parameters, always there; fp32 copies (none in an fp32 model, whose weights are
what is updated) and moments, at ZeRO 1 of the process's own part. A gradient as autograd makes it lasts until it is added.
"""

from __future__ import annotations

from collections.abc import Sequence

from megatron.neox_arguments.arguments import NeoXArgs
from megatron.planning.layout import Layout
from megatron.planning.memory.flat import bucket_length
from megatron.planning.memory.sizes import WIDE
from megatron.planning.memory.zero_parts import Held, ModelState, Parts

CONVERTED = 1 << 22
"""Elements of a gradient in half precision that are converted at a time, before they are added to those of other micro-batches."""


def flat_state(args: NeoXArgs, layout: Layout, parts: Parts, trained: Sequence[tuple[bool, int, int]]) -> ModelState:
    """trained: of each parameter whether it is decayed, its local elements, and how many there are of it."""
    groups = [
        [size for decayed, size, count in trained for _ in range(count) if decayed is kind] for kind in (True, False)
    ]
    elements = sum(bucket_length(sizes, replicas=layout.replicas) for sizes in groups)
    updated = elements // layout.replicas if layout.zero_stage > 0 else elements
    is_half = parts.number < WIDE
    gradients, fresh = WIDE * elements, parts.number * parts.largest
    message = 2 * elements if layout.replicas > 1 and args.communication_data_type == "bf16" else 0
    again = layout.accumulation > 1
    converted = WIDE * min(parts.largest, CONVERTED) if is_half and again else 0
    return ModelState(
        weights=parts.number * elements,
        optimizer=round(updated * ((WIDE if is_half else 0) + parts.moments)),
        resting=Held(gradients),
        accumulating=Held(gradients),
        starting=Held(
            gradients, fresh if again else 0
        ),  # without accumulation the first gradient, the head's, is counted by itself
        reducing=Held(gradients + fresh + parts.tied, message + converted),
        stepping=Held(gradients),
        bucket_share=1.0,
    )
