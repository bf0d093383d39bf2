"""Which architectures exist: heads, widths, positions, norms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from megatron.components import ALL_HEADS_NORMS
from megatron.neox_arguments.conflict import Conflict
from megatron.neox_arguments.derive import nearest_divisors, nearest_multiples

if TYPE_CHECKING:
    from megatron.neox_arguments.resolving.draft import Draft

MIXERS_WITHOUT_HEADS = ("mamba", "rwkv", "gmlp")
MASKED = ("global", "flash", "flex")
"""Attention types that can hide the keys of other documents."""
BY_TORCH = ("flash", "flex")
"""Attention types that torch's scaled dot product attention computes, where nothing faster does."""


def check_heads_divide_hidden_size(args: Draft) -> None:
    """Heads have a whole number of channels, unless their size is given."""
    if "head_dim" in args.given or set(args.attention_config) <= set(MIXERS_WITHOUT_HEADS):
        return
    if args.hidden_size % args.num_attention_heads:
        raise Conflict(
            ("hidden_size", "num_attention_heads"),
            "the heads do not divide the width; "
            f"set hidden_size to {nearest_multiples(args.hidden_size, args.num_attention_heads)}, "
            f"or num_attention_heads to {nearest_divisors(args.num_attention_heads, args.hidden_size)}, or give head_dim",
        )


def check_key_value_heads(args: Draft) -> None:
    """Query heads are shared out evenly among key/value heads."""
    heads = args.num_attention_heads
    if heads % args.num_kv_heads:
        legal = [str(count) for count in range(1, min(heads, 4096) + 1) if heads % count == 0]
        raise Conflict(
            ("num_kv_heads", "num_attention_heads"),
            f"num_kv_heads must divide {heads}: choose one of {', '.join(legal)}",
        )


def check_positions_cover_sequence(args: Draft) -> None:
    """There is a position for every token of a sample."""
    if args.seq_length > args.max_position_embeddings:
        raise Conflict(
            ("seq_length", "max_position_embeddings"),
            f"samples are longer than the positions; set max_position_embeddings to at least {args.seq_length}, "
            f"or seq_length to {args.max_position_embeddings} or less",
        )


def check_rotary_channels(args: Draft) -> None:
    """Rotation works on pairs of channels."""
    is_whole = "head_dim" in args.given or args.hidden_size % args.num_attention_heads == 0
    if args.pos_emb != "rotary" or not is_whole:
        return
    channels = int(args.head_dim * args.rotary_pct)
    if channels % 2 or channels == 0:
        nearest = max(channels - channels % 2, 2) / args.head_dim
        raise Conflict(
            ("rotary_pct", "head_dim"),
            f"{channels} of the {args.head_dim} channels of a head would be rotated, which must be an even number above 0; "
            f"set rotary_pct to {nearest:g}",
        )


def check_one_mlp_width(args: Draft) -> None:
    """The MLP width is written one way."""
    if (
        args.intermediate_size
        and args.expansion_factor
        and args.intermediate_size != int(args.expansion_factor * args.hidden_size)
    ):
        raise Conflict(
            ("intermediate_size", "expansion_factor", "hidden_size"),
            f"these give MLP widths of {args.intermediate_size} and {int(args.expansion_factor * args.hidden_size)}; "
            "keep intermediate_size",
        )


def check_shared_norm(args: Draft) -> None:
    """Only parallel residuals can share a norm."""
    if args.gpt_j_tied and not args.gpt_j_residual:
        raise Conflict(
            ("gpt_j_tied", "gpt_j_residual"), "only parallel residuals share a norm; set gpt_j_residual to true"
        )


def check_query_key_norm(args: Draft) -> None:
    """A norm over all heads is a norm that can be taken over several tensor ranks, and is not asked for in vain."""
    if args.qk_layernorm_scope == "head":
        return
    if not args.use_qk_layernorm:
        raise Conflict(("qk_layernorm_scope", "use_qk_layernorm"), "set use_qk_layernorm to true, or remove the scope")
    if args.norm not in ALL_HEADS_NORMS:
        raise Conflict(
            ("qk_layernorm_scope", "norm"),
            f"all heads are normalised together by {' or '.join(ALL_HEADS_NORMS.names)} only; set qk_layernorm_scope to head",
        )


def check_norm_position(args: Draft) -> None:
    """Parallel residuals have one sum, of which attention and MLP are not normalised apart."""
    if args.norm_position == "post" and args.gpt_j_residual:
        raise Conflict(
            ("norm_position", "gpt_j_residual"),
            "norms behind attention and MLP need one residual after the other; set gpt_j_residual to false",
        )


def check_output_bias(args: Draft) -> None:
    """Only an output layer of its own has a bias."""
    if args.use_bias_in_output_layer and not args.no_weight_tying:
        raise Conflict(
            ("use_bias_in_output_layer", "no_weight_tying"),
            "an output layer that shares the embedding's weights has no bias; set no_weight_tying to true, "
            "or use_bias_in_output_layer to false",
        )


def check_documents_can_be_kept_apart(args: Draft) -> None:
    """Only attention has a mask; other layers carry what they have read from one document into the next."""
    others = [name for name in dict.fromkeys(args.attention_config) if name not in MASKED]
    if args.reset_attention_mask and others:
        raise Conflict(
            ("reset_attention_mask", args.source.find("attention_config", others[0])),
            f"only attention of type {', '.join(MASKED)} can keep documents apart; set reset_attention_mask to false, "
            "or keep them apart by pack_impl: unpacked",
        )


def check_attention_kernel(args: Draft) -> None:
    """A kernel of torch's attention is chosen for types that have it, and drop no weights."""
    if args.sdpa_backend == "auto":
        return
    if set(args.attention_config).isdisjoint(BY_TORCH):
        raise Conflict(
            ("sdpa_backend", "attention_config"),
            f"only attention of type {' and '.join(BY_TORCH)} has such a kernel; set sdpa_backend to auto",
        )
    if args.attention_dropout:
        raise Conflict(
            ("sdpa_backend", "attention_dropout"),
            "no such kernel drops weights the same way in every layout, so that none would be used; set sdpa_backend to auto, "
            "or attention_dropout to 0",
        )


def check_half_precision_loss(args: Draft) -> None:
    """The fp16 loss belongs to fp16 training."""
    if args.fp16_lm_cross_entropy and args.precision != "fp16":
        raise Conflict(("fp16_lm_cross_entropy", "precision"), "only possible with precision fp16; set it to false")
