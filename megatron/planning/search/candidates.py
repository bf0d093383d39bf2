"""The grids of a model on a cluster: candidates for layouts, before the configuration's own checks and memory decide."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.batch_schedule import least_batch
from megatron.planning.hardware.devices import Cluster
from megatron.planning.layout import Layout

LARGEST_MICRO_BATCH = 64
"""Larger ones are not proposed: products are long enough by then, and more accumulation means a smaller bubble."""


def candidates(args: NeoXArgs, cluster: Cluster) -> Iterator[Layout]:
    """Every grid that divides heads, MLP, layers, devices and batch, with every ZeRO stage, micro-batch and way to recompute.

    The context ranks stay those of the config: they are for sequences that do not fit otherwise, and only its author knows others.
    """
    context = args.context_parallel_size
    for tensor in _tensor_sizes(args, cluster):
        if cluster.world_size % (tensor * context):
            continue
        for stages in divisors(cluster.world_size // (tensor * context), most=args.num_layers):
            data = cluster.world_size // (tensor * context * stages)
            if least_batch(args) % data == 0:
                yield from _variants(args, tensor, stages, data)


def changes(given: Layout, other: Layout) -> tuple[str, ...]:
    """The settings in which two layouts of one cluster and batch differ; data and accumulation follow from the others."""
    settings = {
        "pipeline stages": given.stages != other.stages,
        "tensor ranks": given.tensor != other.tensor,
        "sequence parallelism": given.sequence_parallel != other.sequence_parallel,
        "ZeRO stage": max(given.zero_stage, 1) != max(other.zero_stage, 1),
        "micro-batch": given.micro_batch != other.micro_batch,
        "recomputation": given.recompute != other.recompute,
    }
    return tuple(name for name, differs in settings.items() if differs)


def with_micro_batch(layout: Layout, size: int) -> Layout:
    """The layout with another micro-batch, which divides the samples of a data-parallel copy."""
    samples = layout.micro_batch * layout.accumulation
    return replace(layout, micro_batch=size, accumulation=samples // size)


def divisors(number: int, *, most: int) -> list[int]:
    """What divides `number` without being larger than `most`, ascending."""
    return [size for size in range(1, min(number, most) + 1) if number % size == 0]


def _tensor_sizes(args: NeoXArgs, cluster: Cluster) -> list[int]:
    parts = (args.num_attention_heads, args.num_kv_heads, args.mlp_width)
    sizes = divisors(cluster.devices_per_node, most=args.num_attention_heads)
    whole_heads = [size for size in sizes if all(part % size == 0 for part in parts)]
    return [size for size in whole_heads if args.num_attention_heads % (size * args.context_parallel_size) == 0]


def _variants(args: NeoXArgs, tensor: int, stages: int, data: int) -> Iterator[Layout]:
    samples, least = args.train_batch_size // data, least_batch(args)
    low, context = min(args.zero_stage, 1), args.context_parallel_size
    is_divisible = tensor > 1 and args.seq_length % (context * tensor) == 0
    higher = (2, 3) if args.deepspeed else (1,)
    for zero_stage in dict.fromkeys((low, *higher)) if stages == 1 and data * context > 1 else (low,):
        one_stage = 1 if args.pipe_parallel_size == 1 and zero_stage < 2 else 0
        for sequence_parallel in (False, True) if is_divisible else (False,):
            for recompute in (False, True):
                for micro_batch in divisors(least // data, most=LARGEST_MICRO_BATCH):
                    yield Layout(
                        pipeline=stages if stages > 1 else one_stage,
                        data=data,
                        tensor=tensor,
                        sequence_parallel=sequence_parallel,
                        zero_stage=zero_stage,
                        micro_batch=micro_batch,
                        accumulation=samples // micro_batch,
                        recompute=recompute,
                        recompute_every=args.checkpoint_num_layers,
                        context=context,
                    )
