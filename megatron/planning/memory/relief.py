"""What a run that ran out of memory can change: the smallest change of its configuration that should fit.

Unlike `search`, it keeps the devices and the grid, so that the run can go on from its checkpoint as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from megatron.neox_arguments.arguments import NeoXArgs
from megatron.neox_arguments.batch_schedule import least_batch
from megatron.planning.layout import Layout
from megatron.planning.memory.stage_memory import peak_memory
from megatron.planning.model.recomputation import is_selective

HEADROOM = 0.9
"""A change counts when it brings the planned memory down to this share of what was too much."""


@dataclass(frozen=True)
class Relief:
    """A change as `key=value` words, and the bytes a device of the fullest stage needs with it."""

    words: tuple[str, ...]
    total: int


def smallest_relief(args: NeoXArgs, *, vocab_size: int, most: int) -> Relief | None:
    """The first change, cheapest first, with which the plan needs at most `most` bytes; None when none of them is enough."""
    found = (
        Relief(words, peak_memory(changed, layout, vocab_size=vocab_size).total)
        for words, changed, layout in _changes(args, Layout.of(args))
    )
    return next((relief for relief in found if relief.total <= most), None)


def _changes(args: NeoXArgs, given: Layout) -> Iterator[tuple[tuple[str, ...], NeoXArgs, Layout]]:
    """Changes that cost nothing, then recomputation (a third more compute), then smaller micro-batches, each with those before."""
    words: tuple[str, ...] = ()
    if given.tensor > 1 and not given.sequence_parallel and args.seq_length % (given.context * given.tensor) == 0:
        given = replace(given, sequence_parallel=True)
        words = (*words, "sequence_parallel=true")
        yield words, args, given
    stage = 2 if args.deepspeed else 1
    if given.stages == 1 and given.replicas > 1 and given.zero_stage < stage and args.moe_num_experts == 1:
        given = replace(given, pipeline=0, zero_stage=stage)
        words = (
            *words,
            f"zero_optimization.stage={stage}",
            *(["pipe_parallel_size=0"] if args.pipe_parallel_size else []),
        )
        yield words, args, given
    if set(args.attention_config) == {"global"}:
        args = args.model_copy(update={"attention_config": ("flash",) * args.num_layers})
        words = (*words, 'attention_config=[[["flash"],"all"]]')
        yield words, args, given
    if not given.recompute:
        given = replace(given, recompute=True, recompute_every=1)
        words = (*words, "checkpoint_activations=true", "checkpoint_num_layers=1")
        yield words, args, given
    if is_selective(args):
        args = args.model_copy(update={"recompute_granularity": "full"})
        words = (*words, "recompute_granularity=full")
        yield words, args, given
    samples = given.micro_batch * given.accumulation
    for size in range(given.micro_batch - 1, 0, -1):
        if least_batch(args) // given.data % size == 0:
            smaller = replace(given, micro_batch=size, accumulation=samples // size)
            micro = (f"train_micro_batch_size_per_gpu={size}", f"gradient_accumulation_steps={samples // size}")
            yield (*words, *micro), args, smaller
