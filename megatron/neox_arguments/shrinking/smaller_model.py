"""The sizes of a tiny model of the same kind as a given one. Pure; used by shrink.py."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from megatron.neox_arguments.arguments import NeoXArgs
from megatron.neox_arguments.derive import derive_mlp_width

HEADS, KV_HEADS, HEAD_DIM, SEQUENCE, MULTIPLE = 4, 2, 8, 32, 8
"""The sizes aimed at; a model that has less already keeps what it has."""


def smaller_model(
    args: NeoXArgs, *, given: Mapping[str, Any], tensor: int, stages: int, context: int = 1
) -> dict[str, Any]:
    """New values by key path of a model with the same features that fits `tensor` x `context` ranks and `stages`; `given`: the keys that
    were written."""
    heads, kv_heads = smaller_heads(args.num_attention_heads, args.num_kv_heads, ranks=tensor * context)
    head_dim = smaller_head_dim(args)
    hidden = heads * head_dim
    changes: dict[str, Any] = {"num_attention_heads": heads}
    if args.num_kv_heads < args.num_attention_heads:
        changes["num_kv_heads"] = kv_heads
    elif "num_kv_heads" in given:
        changes["num_kv_heads"] = heads
    if given.get("head_dim") is not None:
        changes["head_dim"] = head_dim
        hidden = _other_width(args, heads=heads, head_dim=head_dim)
    changes["hidden_size"] = hidden
    changes |= _mlp(args, given, hidden=hidden, tensor=tensor)
    changes |= _layers(args, given, stages=stages)
    changes |= _positions(args, given, ranks=tensor * context)
    changes |= _vocabulary(args, tensor=tensor)
    return changes | _other_mixers(args, hidden=hidden, head_dim=head_dim)


def smaller_heads(heads: int, kv_heads: int, *, ranks: int) -> tuple[int, int]:
    """(query heads, key/value heads), the first divisible by `ranks`, with a ratio above 1 if and only if it was."""
    if kv_heads == heads:
        count = min(heads, HEADS) // ranks * ranks
        return count, count
    kv_count = min(kv_heads, KV_HEADS)
    unit = math.lcm(2 * kv_count, ranks)
    return max(min(heads, HEADS) // unit, 1) * unit, kv_count


def smaller_head_dim(args: NeoXArgs) -> int:
    """Channels of a head, so many that an even number of them is rotated."""
    for channels in range(HEAD_DIM, args.head_dim):
        rotated = int(channels * args.rotary_pct)
        if args.pos_emb != "rotary" or (rotated >= 2 and rotated % 2 == 0):
            return channels
    return args.head_dim


def _other_width(args: NeoXArgs, *, heads: int, head_dim: int) -> int:
    """The width of the stream where head_dim is written: as much wider or narrower than the heads together, or the same."""
    together = args.num_attention_heads * args.head_dim
    if args.hidden_size == together:
        return heads * head_dim
    return heads * head_dim * 2 if args.hidden_size > together else max(heads * head_dim // 2, 1)


def _mlp(args: NeoXArgs, given: Mapping[str, Any], *, hidden: int, tensor: int) -> dict[str, Any]:
    """The same ratio to the width (up to 4), rounded as before, and divisible over the tensor ranks."""
    multiple_of = MULTIPLE if args.mlp_multiple_of > 1 else 1
    by_rule = derive_mlp_width(
        hidden, intermediate_size=None, expansion_factor=None, multiple_of=multiple_of, gated=args.gated_activation
    )
    changes: dict[str, Any] = {"mlp_multiple_of": multiple_of}
    if args.intermediate_size or args.expansion_factor or by_rule % tensor:
        wanted = min(round(args.mlp_width * hidden / args.hidden_size), 4 * hidden)
        width = max(wanted // tensor, 1) * tensor
        changes["intermediate_size"] = 3 * width if args.gated_activation else width
    if "expansion_factor" in given:
        changes["expansion_factor"] = None
    if args.moe_num_experts > 1:
        changes["moe_top_k"] = min(args.moe_top_k, 2)
        changes["moe_num_experts"] = min(args.moe_num_experts, 2 * changes["moe_top_k"])
    return changes


def _layers(args: NeoXArgs, given: Mapping[str, Any], *, stages: int) -> dict[str, Any]:
    """Two layers a stage; more where all attention types, or a group of blocks recomputed together and one beside it, need them."""
    types = list(dict.fromkeys(args.attention_config))
    together = min(args.checkpoint_num_layers, args.num_layers)
    count = min(args.num_layers, max(2 * stages, len(types), 3 if together > 1 else 1))
    changes: dict[str, Any] = {"num_layers": count}
    if "attention_config" in given:
        changes["attention_config"] = [[types, "all"]]
    if together > 1:
        changes["checkpoint_num_layers"] = count if together == args.num_layers else 2
    if args.moe_expert_interval > 1:
        changes["moe_expert_interval"] = 2
    if args.num_unique_layers:
        shared = args.num_unique_layers < args.num_layers
        changes["num_unique_layers"] = max(min(args.num_unique_layers, count - shared), 1)
    return changes


def _positions(args: NeoXArgs, given: Mapping[str, Any], *, ranks: int) -> dict[str, Any]:
    """A short sequence; lengths that are compared with it keep their ratio to it."""
    length = max(min(args.seq_length, SEQUENCE) // ranks, 1) * ranks

    def scaled(positions: int) -> int:
        return max(positions * length // args.seq_length, 1)

    changes: dict[str, Any] = {"seq_length": length}
    if "max_position_embeddings" in given:
        longer = args.max_position_embeddings > args.seq_length
        changes["max_position_embeddings"] = max(scaled(args.max_position_embeddings), length + longer)
    if args.sliding_window_width:
        active = args.sliding_window_width < args.seq_length
        changes["sliding_window_width"] = min(scaled(args.sliding_window_width), length // 2) if active else length
    original = (args.rope_scaling or {}).get("original_max_position_embeddings")
    if original:
        changes["rope_scaling.original_max_position_embeddings"] = scaled(original)
    for key, limit in (("block", MULTIPLE), ("num_local_blocks", 2)):
        if key in (args.sparsity_config or {}):
            changes[f"sparsity_config.{key}"] = min(args.sparsity_config[key], limit)  # type: ignore[index]
    return changes


def _vocabulary(args: NeoXArgs, *, tensor: int) -> dict[str, Any]:
    """The tokenizer stays; padding to more than usual, and a size on record, would not be small."""
    divisible_by = min(args.make_vocab_size_divisible_by, 128)
    changes: dict[str, Any] = {"make_vocab_size_divisible_by": divisible_by}
    if args.padded_vocab_size:
        changes["padded_vocab_size"] = min(args.padded_vocab_size, 4 * divisible_by * tensor)
    return changes


def _other_mixers(args: NeoXArgs, *, hidden: int, head_dim: int) -> dict[str, Any]:
    """The widths of gMLP, aMLP and RWKV, and the length of a soft prompt."""
    changes: dict[str, Any] = {}
    if {"gmlp", "amlp"} & set(args.attention_config):
        changes["gmlp_attn_dim"] = min(args.gmlp_attn_dim, HEAD_DIM)
    if "rwkv" in args.attention_config:
        changes |= {"dim_att": hidden} if args.dim_att else {}
        changes |= {"head_size": head_dim} if args.head_size else {}
        changes |= {"ffn_dim": args.ffn_dim * hidden // args.hidden_size} if args.ffn_dim else {}
    if "num_tokens" in (args.soft_prompt_tuning or {}):
        changes["soft_prompt_tuning.num_tokens"] = 4
    return changes
