"""Which layouts exist: ZeRO, pipelines, tensor and sequence parallelism, and what divides over them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from megatron.neox_arguments.conflict import Conflict
from megatron.neox_arguments.derive import nearest_divisors, nearest_multiples
from megatron.neox_arguments.keys.attention_types import SPARSE, WHOLE_BLOCKS
from megatron.neox_arguments.reading.values import quote

if TYPE_CHECKING:
    from megatron.neox_arguments.resolving.draft import Draft


def check_zero_with_pipeline(args: Draft) -> None:
    """Pipelines keep gradients over several micro-batches, which ZeRO 2 and 3 would have to divide after each."""
    if args.zero_stage >= 2 and args.pipeline_stages > 1:
        raise Conflict(
            ("zero_stage", "pipe_parallel_size"),
            "ZeRO 2 and 3 do not work with more than one pipeline stage; set the stage to 1, or pipe_parallel_size to 0",
        )


def check_zero_with_experts(args: Draft) -> None:
    """Experts have data-parallel groups of their own, which ZeRO 2 and 3 do not know."""
    if args.zero_stage >= 2 and args.moe_num_experts > 1:
        raise Conflict(
            ("zero_stage", "moe_num_experts"), "mixture of experts works with ZeRO 0 and 1; set the stage to 1"
        )


def check_zero_with_recurrent_mixers(args: Draft) -> None:
    """Mamba and RWKV read weights outside their modules' forward, where ZeRO 3 has not gathered them."""
    if args.zero_stage == 3 and {"mamba", "rwkv"} & set(args.attention_config):
        raise Conflict(("zero_stage", "attention_config"), "Mamba and RWKV work with ZeRO 0 to 2; set the stage to 2")


def check_gmlp_with_partitioned_activations(args: Draft) -> None:
    """gMLP's gate needs the whole activation."""
    if args.partition_activations and {"gmlp", "amlp"} & set(args.attention_config):
        raise Conflict(
            ("attention_config", "partition_activations"),
            "gMLP and aMLP do not work with it; set partition_activations to false",
        )


def check_offload(args: Draft) -> None:
    """Optimizer states go to host memory whole, and torch's optimizer updates them there."""
    section, older = args.zero_optimization.get("offload_optimizer") or {}, args.zero_optimization.get("cpu_offload")
    if args.zero_optimization.get("zenflow") and (section.get("device", "none") != "none" or older):
        raise Conflict(
            ("zero_optimization.zenflow",), "ZenFlow needs an optimizer that is compiled at the start; remove it"
        )
    if section.get("device", "none") == "none":
        if section and older:
            raise Conflict(
                ("zero_optimization.cpu_offload", "zero_optimization.offload_optimizer"),
                "the older spelling says the opposite; remove cpu_offload",
            )
        return
    unbuilt = {"device": "cpu", "ratio": 1.0, "super_offload": False}
    for key, built in unbuilt.items():
        if section.get(key, built) != built:
            raise Conflict(
                (f"zero_optimization.offload_optimizer.{key}",),
                f"only moving all optimizer states to host memory is supported; set it to {quote(built)}",
            )


def check_selective_recomputation(args: Draft) -> None:
    """Selective recomputation keeps no inputs of blocks that could be grouped, divided or moved."""
    if not args.checkpoint_activations or args.recompute_granularity != "selective":
        return
    unneeded = {"checkpoint_num_layers": 1, "partition_activations": False, "checkpoint_in_cpu": False}
    for key, plain in unneeded.items():
        if getattr(args, key) != plain:
            raise Conflict(
                ("recompute_granularity", key),
                f"selective recomputation is inside attention and keeps no inputs of whole blocks; set {key} to {quote(plain)}, "
                "or recompute_granularity to full",
            )


def check_sparse_attention_heads(args: Draft) -> None:
    """Sparse kernels know no shared key/value heads."""
    if args.num_kv_heads != args.num_attention_heads and set(SPARSE) & set(args.attention_config):
        raise Conflict(
            ("attention_config", "num_kv_heads", "num_attention_heads"),
            f"sparse attention needs as many key/value heads as query heads; set num_kv_heads to {args.num_attention_heads}",
        )


def check_pipeline_has_layers(args: Draft) -> None:
    """Each pipeline stage has at least one block."""
    if args.pipeline_stages > args.num_layers:
        raise Conflict(
            ("pipe_parallel_size", "num_layers"), f"each stage needs a layer; use at most {args.num_layers} stages"
        )


def check_heads_divide_over_tensor_ranks(args: Draft) -> None:
    """Each tensor rank has whole heads."""
    size = args.model_parallel_size
    for key in ("num_attention_heads", "num_kv_heads"):
        if getattr(args, key) % size:
            raise Conflict(
                (key, "model_parallel_size"),
                f"each of {size} tensor ranks needs whole heads; use {nearest_multiples(getattr(args, key), size)}, "
                f"or set model_parallel_size to {nearest_divisors(size, getattr(args, key))}",
            )


def check_mlp_divides_over_tensor_ranks(args: Draft) -> None:
    """Each tensor rank has an equal part of the MLP."""
    if args.mlp_width % args.model_parallel_size:
        raise Conflict(
            ("intermediate_size", "mlp_multiple_of", "model_parallel_size"),
            f"the MLP width {args.mlp_width} does not divide over {args.model_parallel_size} tensor ranks; "
            f"set mlp_multiple_of to {math.lcm(args.mlp_multiple_of, args.model_parallel_size)}",
        )


def check_sequence_divides_over_context_ranks(args: Draft) -> None:
    """Context parallelism gives each rank an equal part of the sequence."""
    size = args.context_parallel_size
    if args.seq_length % size:
        raise Conflict(
            ("seq_length", "context_parallel_size"),
            f"the sequence does not divide over {size} context ranks; use {nearest_multiples(args.seq_length, size)} tokens, "
            f"or set context_parallel_size to {nearest_divisors(size, args.seq_length)}",
        )


def check_heads_divide_over_context_ranks(args: Draft) -> None:
    """Inside attention each context rank has an equal share of the query heads of its tensor rank."""
    size, ranks = args.context_parallel_size, args.model_parallel_size
    if args.num_attention_heads % ranks == 0 and args.num_attention_heads // ranks % size:
        heads = args.num_attention_heads // ranks
        raise Conflict(
            ("context_parallel_size", "num_attention_heads", *(["model_parallel_size"] if ranks > 1 else [])),
            f"each of {size} context ranks takes a share of the {heads} query heads{' of a tensor rank' if ranks > 1 else ''}; "
            f"set context_parallel_size to {nearest_divisors(size, heads)}, "
            f"or num_attention_heads to {nearest_multiples(args.num_attention_heads, ranks * size)}",
        )


def check_context_ranks_have_attention(args: Draft) -> None:
    """Context ranks trade around the core of attention; other mixers would see a part of the sequence only."""
    others = sorted(set(args.attention_config) & set(WHOLE_BLOCKS))
    if args.context_parallel_size > 1 and others:
        raise Conflict(
            ("context_parallel_size", "attention_config"),
            f"context parallelism is not built for {', '.join(others)}; set context_parallel_size to 1",
        )


def check_sequence_divides_over_tensor_ranks(args: Draft) -> None:
    """Sequence parallelism gives each tensor rank an equal piece of the sequence, or of its part of a context rank."""
    ranks = args.context_parallel_size * args.model_parallel_size
    if args.sequence_parallel and args.seq_length % ranks and args.seq_length % args.context_parallel_size == 0:
        among = f"{args.context_parallel_size} context x {args.model_parallel_size} tensor ranks"
        raise Conflict(
            (
                "seq_length",
                "sequence_parallel",
                *(["context_parallel_size"] if args.context_parallel_size > 1 else []),
                "model_parallel_size",
            ),
            f"the sequence does not divide over {among if args.context_parallel_size > 1 else f'{ranks} tensor ranks'}; "
            f"use {nearest_multiples(args.seq_length, ranks)} tokens or switch sequence_parallel off",
        )
