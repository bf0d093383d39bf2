"""Which architectures exist: heads, widths, positions, norms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from megatron.neox_arguments.conflict import Conflict
from megatron.neox_arguments.derive import nearest_multiples

if TYPE_CHECKING:
    from megatron.neox_arguments.draft import Draft

MIXERS_WITHOUT_HEADS = ("mamba", "rwkv", "gmlp")


def check_heads_divide_hidden_size(args: Draft) -> None:
    """Heads have a whole number of channels."""
    if set(args.attention_config) <= set(MIXERS_WITHOUT_HEADS):
        return
    if args.hidden_size % args.num_attention_heads:
        raise Conflict(
            ("hidden_size", "num_attention_heads"),
            f"the heads do not divide the width; set hidden_size to {nearest_multiples(args.hidden_size, args.num_attention_heads)}",
        )


def check_key_value_heads(args: Draft) -> None:
    """Query heads are shared out evenly among key/value heads."""
    heads = args.num_attention_heads
    if heads % args.num_kv_heads:
        legal = [str(count) for count in range(1, heads + 1) if heads % count == 0]
        raise Conflict(
            ("num_kv_heads", "num_attention_heads"),
            f"num_kv_heads must divide {heads}: choose one of {', '.join(legal)}",
        )


def check_positions_cover_sequence(args: Draft) -> None:
    """There is a position for every token of a sample."""
    if args.seq_length > args.max_position_embeddings:
        raise Conflict(
            ("seq_length", "max_position_embeddings"),
            f"samples are longer than the positions; set max_position_embeddings to at least {args.seq_length}",
        )


def check_rotary_channels(args: Draft) -> None:
    """Rotation works on pairs of channels."""
    if args.pos_emb != "rotary" or args.hidden_size % args.num_attention_heads:
        return
    channels = int(args.head_dim * args.rotary_pct)
    if channels % 2 or channels == 0:
        nearest = max(channels - channels % 2, 2) / args.head_dim
        raise Conflict(
            ("rotary_pct", "hidden_size", "num_attention_heads"),
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
            "these give different MLP widths; keep intermediate_size",
        )


def check_shared_norm(args: Draft) -> None:
    """Only parallel residuals can share a norm."""
    if args.gpt_j_tied and not args.gpt_j_residual:
        raise Conflict(("gpt_j_tied", "gpt_j_residual"), "sharing the norm needs gpt_j_residual: true")


def check_half_precision_loss(args: Draft) -> None:
    """The fp16 loss belongs to fp16 training."""
    if args.fp16_lm_cross_entropy and args.precision != "fp16":
        raise Conflict(("fp16_lm_cross_entropy", "precision"), "only possible with precision fp16; set it to false")
