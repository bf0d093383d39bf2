"""Which layouts exist: ZeRO, pipelines, tensor and sequence parallelism, and what divides over them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from megatron.neox_arguments.conflict import Conflict
from megatron.neox_arguments.derive import nearest_divisors, nearest_multiples
from megatron.neox_arguments.keys.attention_types import SPARSE

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


def check_sequence_divides_over_tensor_ranks(args: Draft) -> None:
    """Sequence parallelism gives each tensor rank an equal piece of the sequence."""
    if args.sequence_parallel and args.seq_length % args.model_parallel_size:
        raise Conflict(
            ("seq_length", "sequence_parallel", "model_parallel_size"),
            f"the sequence does not divide over {args.model_parallel_size} tensor ranks; "
            f"use {nearest_multiples(args.seq_length, args.model_parallel_size)} tokens or switch sequence_parallel off",
        )
