"""Parameters of blocks that mix tokens without attention heads: Mamba, RWKV, gMLP and aMLP; not built yet.

Shapes are those of GPT-NeoX's modules: Mamba (Gu and Dao 2023), RWKV 6 (Peng et al. 2024), gMLP and aMLP (Liu et al. 2021).
"""

from __future__ import annotations

import math

from megatron.neox_arguments.arguments import NeoXArgs
from megatron.planning.model.shapes import TensorShape, column_linear, norm_tensors, prefixed, row_linear, whole_linear

MAMBA_EXPANSION, MAMBA_STATE, MAMBA_KERNEL, MAMBA_STEP_DIVISOR = 2, 16, 4, 16
RWKV_EXPANSION, RWKV_WIDTH_MULTIPLE, RWKV_MIX_RANK, RWKV_DECAY_RANK = 3.5, 32, 32, 64
GMLP_EXPANSION = 4


def mamba_tensors(args: NeoXArgs) -> tuple[TensorShape, ...]:
    """A norm and the selective state space, cut over tensor ranks by its inner channels."""
    hidden, inner = args.hidden_size, MAMBA_EXPANSION * args.hidden_size
    rank = math.ceil(hidden / MAMBA_STEP_DIVISOR)
    bias, wide = args.mamba_use_bias_in_linears, args.mamba_selective_fp32_params
    convolution = [TensorShape("conv1d.weight", (inner, 1, MAMBA_KERNEL), 0)]
    if args.mamba_use_bias_in_conv:
        convolution.append(TensorShape("conv1d.bias", (inner,), 0))
    mixer = (
        TensorShape("A_log", (inner, MAMBA_STATE), 0, is_fp32=wide),
        TensorShape("D", (inner,), 0, is_fp32=wide),
        *prefixed("in_proj", column_linear(hidden, 2 * inner, bias=bias)),
        *convolution,
        *prefixed("x_proj", row_linear(inner, rank + 2 * MAMBA_STATE, bias=bias)),
        *prefixed("dt_proj", column_linear(rank, inner, bias=True)),
        *prefixed("out_proj", row_linear(inner, hidden, bias=bias)),
    )
    norm = norm_tensors(args.norm, hidden, bias=args.use_bias_in_norms)
    return *prefixed("norm", norm), *prefixed("mixer", mixer)


def rwkv_widths(args: NeoXArgs) -> tuple[int, int]:
    """Widths of time mixing (`dim_att`) and of channel mixing (3.5 h unless configured, rounded down to a multiple of 32)."""
    if args.intermediate_size is not None:
        channels = args.intermediate_size
    else:
        channels = args.ffn_dim or int((args.expansion_factor or RWKV_EXPANSION) * args.hidden_size)
    return args.dim_att or args.hidden_size, channels // RWKV_WIDTH_MULTIPLE * RWKV_WIDTH_MULTIPLE


def rwkv_tensors(args: NeoXArgs) -> tuple[TensorShape, ...]:
    """Time mixing and channel mixing behind a LayerNorm each; every tensor rank has all of it."""
    hidden = args.hidden_size
    time, channels = rwkv_widths(args)
    heads = args.num_attention_heads
    mixes = [TensorShape(f"time_maa_{name}", (1, 1, hidden)) for name in "xwkvrg"]
    attention = (
        *mixes,
        TensorShape("time_maa_w1", (hidden, 5 * RWKV_MIX_RANK)),
        TensorShape("time_maa_w2", (5, RWKV_MIX_RANK, hidden)),
        TensorShape("time_decay", (1, 1, time)),
        TensorShape("time_decay_w1", (hidden, RWKV_DECAY_RANK)),
        TensorShape("time_decay_w2", (RWKV_DECAY_RANK, time)),
        TensorShape("time_faaaa", (heads, time // heads)),
        *(TensorShape(f"{name}.weight", (time, hidden)) for name in ("receptance", "key", "value")),
        TensorShape("output.weight", (hidden, time)),
        TensorShape("gate.weight", (time, hidden)),
        *prefixed("ln_x", norm_tensors("layernorm", time, bias=True)),
    )
    feed_forward = (
        *(TensorShape(f"time_maa_{name}", (1, 1, hidden)) for name in "kr"),
        TensorShape("key.weight", (channels, hidden)),
        TensorShape("receptance.weight", (hidden, hidden)),
        TensorShape("value.weight", (hidden, channels)),
    )
    norm = norm_tensors("layernorm", hidden, bias=True)
    return (
        *prefixed("ln1", norm),
        *prefixed("ln2", norm),
        *prefixed("att", attention),
        *prefixed("ffn", feed_forward),
    )


def gmlp_tensors(args: NeoXArgs, *, with_attention: bool) -> tuple[TensorShape, ...]:
    """A norm, the widening and the narrowing projection, and the spatial gate between them; with_attention: aMLP."""
    hidden, width, sequence = args.hidden_size, GMLP_EXPANSION * args.hidden_size, args.seq_length
    gate = [
        *prefixed("norm", norm_tensors(args.norm, width, bias=args.use_bias_in_norms, sharded=True)),
        *prefixed("proj", whole_linear(sequence, sequence, bias=True)),
    ]
    if with_attention:
        channels = args.gmlp_attn_dim
        gate += prefixed("attn.proj_qkv", row_linear(2 * width, 3 * channels, bias=True))
        gate += prefixed("attn.proj_ffn", column_linear(channels, width, bias=True))
    return (
        *prefixed("norm", norm_tensors(args.norm, hidden, bias=args.use_bias_in_norms)),
        *prefixed("input_linear", column_linear(hidden, 2 * width, bias=True)),
        *prefixed("sgu", gate),
        *prefixed("output_linear", row_linear(width, hidden, bias=True)),
    )
