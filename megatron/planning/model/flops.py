"""Floating-point operations of a model, from its arguments alone.

Counted as in PaLM (Chowdhery et al. 2022, appendix B): 2 operations a multiply-add, matrix products only, attention scores over the full
sequence (not halved for the causal mask) or over the sliding window where there is one, the backward pass twice the forward pass.
*Model* FLOPs count that and give MFU; *hardware* FLOPs add the forward passes that activation checkpointing repeats, and give HFU.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from megatron.neox_arguments.arguments import NeoXArgs
from megatron.neox_arguments.keys.attention_types import SPARSE
from megatron.planning.model.experts import expert_width, has_experts
from megatron.planning.model.mixers import (
    GMLP_EXPANSION,
    MAMBA_EXPANSION,
    MAMBA_STATE,
    MAMBA_STEP_DIVISOR,
    RWKV_DECAY_RANK,
    RWKV_MIX_RANK,
    rwkv_widths,
)
from megatron.planning.model.recomputation import has_scores, is_selective

BACKWARD_PER_FORWARD = 2


def forward_flops_per_token(args: NeoXArgs, *, vocab_size: int) -> int:
    """Forward pass of the whole model, per token of a sequence of `seq_length`. vocab_size: rows of the head."""
    return forward_flops_per_token_of_blocks(args) + head_flops_per_token(args, vocab_size=vocab_size)


def forward_flops_per_token_of_blocks(args: NeoXArgs) -> int:
    """Forward pass of all blocks, per token."""
    return sum(forward_flops_per_token_of_block(args, layer) for layer in range(args.num_layers))


def forward_flops_per_token_of_block(args: NeoXArgs, layer: int = 0) -> int:
    """Forward pass of block number `layer`, per token."""
    kind = args.attention_config[layer]
    mixing = MIXERS[kind](args)
    if has_experts(args, layer):
        return mixing + _experts(args)
    return mixing + (_mlp(args) if kind in WITH_MLP else 0)


def head_flops_per_token(args: NeoXArgs, *, vocab_size: int) -> int:
    """Forward pass of the output layer, per token."""
    return 2 * args.hidden_size * vocab_size


def model_flops_per_token(args: NeoXArgs, *, vocab_size: int) -> int:
    """Forward and backward pass of the whole model, per token."""
    return forward_flops_per_token(args, vocab_size=vocab_size) * (1 + BACKWARD_PER_FORWARD)


def hardware_flops_per_token(args: NeoXArgs, *, vocab_size: int) -> int:
    """As `model_flops_per_token`, plus what activation checkpointing computes a second time."""
    repeated = repeated_flops_per_token(args) if args.checkpoint_activations else 0
    return model_flops_per_token(args, vocab_size=vocab_size) + repeated


def repeated_flops_per_token(args: NeoXArgs) -> int:
    """What recomputation, where it is on, computes again, per token: all blocks, or selectively the scores that are in memory."""
    if not is_selective(args):
        return forward_flops_per_token_of_blocks(args)
    return sum(_products_with_keys(args, 1) for kind in args.attention_config if has_scores(args, kind))


def flops_remarks(args: NeoXArgs) -> tuple[str, ...]:
    """What the counts above leave out or count too high for this architecture, as sentences; empty for ordinary models."""
    kinds = set(args.attention_config)
    remarks = []
    if kinds & set(SPARSE):
        remarks.append("sparse attention is counted as if it were dense: an upper bound")
    if "mamba" in kinds:
        remarks.append("Mamba's scan and convolution are elementwise and not counted")
    if args.soft_prompt_tuning and args.soft_prompt_tuning.get("enabled"):
        remarks.append("counted as if all weights were trained: an upper bound for soft prompts")
    return tuple(remarks)


def _attention(args: NeoXArgs) -> int:
    hidden, head_dim = args.hidden_size, args.head_dim
    query_width, key_value_width = args.num_attention_heads * head_dim, args.num_kv_heads * head_dim
    projections = 2 * hidden * (query_width + 2 * key_value_width) + 2 * query_width * hidden
    return projections + _products_with_keys(args, 2)


def _products_with_keys(args: NeoXArgs, count: int) -> int:
    """Scores are one product of queries with every key, what attention makes of the values is another."""
    keys = min(args.seq_length, args.sliding_window_width or args.seq_length)
    return count * 2 * keys * args.num_attention_heads * args.head_dim


def _mlp(args: NeoXArgs) -> int:
    matrices = 3 if args.gated_activation else 2
    return 2 * matrices * args.hidden_size * args.mlp_width


def _experts(args: NeoXArgs) -> int:
    """A router over all experts, and `moe_top_k` of them."""
    matrices = 3 if args.gated_activation else 2
    visited = args.moe_top_k * matrices * expert_width(args)
    return 2 * args.hidden_size * (args.moe_num_experts + visited)


def _mamba(args: NeoXArgs) -> int:
    """Gu and Dao 2023: projections into stream and gate, to (step, B, C), from the low-rank step to the width, and out."""
    hidden, width = args.hidden_size, MAMBA_EXPANSION * args.hidden_size
    rank = math.ceil(hidden / MAMBA_STEP_DIVISOR)
    return 2 * (hidden * 2 * width + width * (rank + 2 * MAMBA_STATE) + rank * width + width * hidden)


def _rwkv(args: NeoXArgs) -> int:
    """RWKV 6 (Peng et al. 2024): time mixing with its low-rank mixes and decay, reading and writing the state of each head, and
    channel mixing."""
    hidden, (width, channels) = args.hidden_size, rwkv_widths(args)
    mixes = 2 * 5 * RWKV_MIX_RANK * hidden + RWKV_DECAY_RANK * (hidden + width)
    state = 2 * width * (width // args.num_attention_heads)
    return 2 * (5 * hidden * width + mixes + state + hidden * hidden + 2 * hidden * channels)


def _gmlp(args: NeoXArgs) -> int:
    """Liu et al. 2021: widening to value and gate, the gate's product over positions, narrowing."""
    width = GMLP_EXPANSION * args.hidden_size
    return 2 * (args.hidden_size * 2 * width + args.seq_length * width + width * args.hidden_size)


def _amlp(args: NeoXArgs) -> int:
    """gMLP with a small attention of one head beside the gate."""
    width, small = GMLP_EXPANSION * args.hidden_size, args.gmlp_attn_dim
    return _gmlp(args) + 2 * (2 * width * 3 * small + 2 * args.seq_length * small + small * width)


WITH_MLP = ("global", "flash", "flex", *SPARSE)
"""Attention types beside which a block has an MLP; the other mixers are whole blocks."""

MIXERS: dict[str, Callable[[NeoXArgs], int]] = {
    **dict.fromkeys(WITH_MLP, _attention),
    "mamba": _mamba,
    "rwkv": _rwkv,
    "gmlp": _gmlp,
    "amlp": _amlp,
}
