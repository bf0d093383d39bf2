"""What autograd keeps of one micro-batch until its backward pass, in bytes a device, layer by layer.

Counted are tensors that an operation saves for its backward pass, each memory once, in the modules of `megatron.model`; views cost
nothing. `device` matters where torch saves other things on a GPU: the mask of a dropout is a byte an element there, on the CPU a number
of the model's precision; statistics of a LayerNorm are fp32 there; RMSNorm is one operation there, on the CPU several that each save.

Letters: T tokens of a micro-batch, `T'` the part of them that a rank has between tensor-parallel regions, e bytes a number, h hidden,
q and k local widths of queries and of keys, w local MLP width.
"""

from __future__ import annotations

from dataclasses import dataclass

from megatron.neox_arguments.arguments import NeoXArgs
from megatron.planning.estimates import MIXERS, experts_bytes, mixer_bytes
from megatron.planning.experts import has_experts
from megatron.planning.sizes import INTEGER, WIDE, Sizes


@dataclass(frozen=True)
class NormCost:
    """What a norm keeps: whether its input, and how many bytes beside it."""

    keeps_input: bool
    bytes: int


def norm_cost(kind: str, sizes: Sizes, *, vectors: int, width: int) -> NormCost:
    """The cost of normalising `vectors` vectors of `width` channels."""
    wide = WIDE * vectors * width
    if kind == "scalenorm":
        # The input in fp32 (the input itself if it is), what it is after division, its lengths before and after clamping.
        return NormCost(not sizes.is_half, wide * (2 if sizes.is_half else 1) + 2 * WIDE * vectors)
    if kind in ("rmsnorm", "te_rmsnorm"):
        if sizes.device == "cuda":
            return NormCost(True, WIDE * vectors)
        return NormCost(not sizes.is_half, wide * (2 if sizes.is_half else 1) + WIDE * vectors)
    statistics = WIDE if sizes.device == "cuda" else sizes.number
    return NormCost(True, 2 * statistics * vectors)


def block_bytes(args: NeoXArgs, sizes: Sizes, layer: int) -> int:
    """What block number `layer`, from 0, keeps, its input included where an operation in it keeps that."""
    kind = args.attention_config[layer]
    if kind in MIXERS:
        return mixer_bytes(args, sizes, kind)
    inner = experts_bytes(args, sizes) if has_experts(args, layer) else mlp_bytes(args, sizes)
    return _stream_bytes(args, sizes) + _attention_bytes(args, sizes, kind) + inner


def block_keeps_input(args: NeoXArgs, sizes: Sizes, layer: int) -> bool:
    """Whether `block_bytes` counts the block's input."""
    if args.norm_position == "post" or args.attention_config[layer] in MIXERS:
        return True
    return norm_cost(args.norm, sizes, vectors=sizes.stream_tokens, width=args.hidden_size).keeps_input


def embedding_bytes(args: NeoXArgs, sizes: Sizes) -> int:
    """What the embedding keeps: the rows it looked up, and the mask of its dropout."""
    rows = INTEGER * sizes.tokens + (sizes.tokens if sizes.tensor > 1 else 0)
    positions = INTEGER * sizes.tokens if args.pos_emb == "learned" else 0
    return rows + positions + (_dropout_mask(sizes) if args.hidden_dropout else 0)


def final_norm_bytes(args: NeoXArgs, sizes: Sizes) -> int:
    """What the final norm keeps, its input included."""
    cost = norm_cost(args.norm, sizes, vectors=sizes.stream_tokens, width=args.hidden_size)
    return cost.bytes + (sizes.stream if cost.keeps_input else 0)


def head_bytes(args: NeoXArgs, sizes: Sizes) -> int:
    """What the head keeps: its input, which a tied head gathers first under sequence parallelism."""
    return sizes.stream if args.no_weight_tying else sizes.number * sizes.tokens * sizes.hidden


def loss_bytes(sizes: Sizes, *, columns: int) -> int:
    """What the loss keeps: local logits of `columns` columns, and of each token its partition function, label, masks and weight."""
    return sizes.number * sizes.tokens * columns + sizes.tokens * (WIDE + INTEGER + 1 + 1 + WIDE)


def _stream_bytes(args: NeoXArgs, sizes: Sizes) -> int:
    """Norms, their inputs and outputs, and dropout."""
    cost = norm_cost(args.norm, sizes, vectors=sizes.stream_tokens, width=args.hidden_size)
    dropout = 2 * _dropout_mask(sizes) if args.hidden_dropout else 0
    if args.norm_position == "post":
        # Both projections keep what they read from the stream, both norms what attention and MLP give.
        return 2 * (sizes.stream + cost.bytes) + (2 * sizes.stream if cost.keeps_input else 0) + dropout
    norms = 1 if args.gpt_j_residual and args.gpt_j_tied else 2
    inputs = 1 if args.gpt_j_residual else 2
    return norms * (sizes.stream + cost.bytes) + (inputs * sizes.stream if cost.keeps_input else 0) + dropout


def _dropout_mask(sizes: Sizes) -> int:
    return sizes.stream_tokens * sizes.hidden * (1 if sizes.device == "cuda" else sizes.number)


def _attention_bytes(args: NeoXArgs, sizes: Sizes, kind: str) -> int:
    rotated = args.pos_emb == "rotary"
    tables = 2 * WIDE * sizes.tokens * int(sizes.head_dim * args.rotary_pct) if rotated else 0
    norms = _query_key_norm_bytes(args, sizes) if args.use_qk_layernorm else NormCost(False, 0)
    core = _flash_bytes if kind == "flash" else _global_bytes
    return tables + norms.bytes + core(args, sizes, keeps_fused=norms.keeps_input)


def _is_moved(args: NeoXArgs) -> bool:
    """Whether queries and keys are no longer views of the fused projection."""
    return args.pos_emb == "rotary" or args.use_qk_layernorm


def _is_reordered(args: NeoXArgs) -> bool:
    """Whether queries no longer lie in memory as the fused projection wrote them, by sequence first.

    Products with angles keep that order; putting rotated and other channels together does not, nor does a norm of each head.
    """
    return (args.pos_emb == "rotary" and args.rotary_pct < 1) or (
        args.use_qk_layernorm and args.qk_layernorm_scope == "head"
    )


def _query_key_norm_bytes(args: NeoXArgs, sizes: Sizes) -> NormCost:
    heads = sizes.heads + sizes.kv_heads
    if args.qk_layernorm_scope == "head":
        return norm_cost(args.norm, sizes, vectors=sizes.tokens * heads, width=sizes.head_dim)
    # Over all heads, everything is computed in fp32: what is divided, what comes of it, and two root mean squares.
    wide = WIDE * sizes.tokens * heads * sizes.head_dim
    statistics = 2 * WIDE * sizes.tokens
    is_view = args.norm == "rmsnorm" and not sizes.is_half
    return NormCost(is_view, wide * (1 if is_view else 2) + statistics)


def _flash_bytes(args: NeoXArgs, sizes: Sizes, *, keeps_fused: bool) -> int:
    """Attention that keeps no scores: fused projection, moved queries and keys, output, and the logarithm of each row's sum.

    The values are a view of the projection, and so are unmoved queries and keys. The output lies in memory as the queries do: where
    they were reordered, the output projection reads a copy.
    """
    if args.attention_dropout and sizes.device == "cpu":
        return _unfused_bytes(sizes, keeps_fused=keeps_fused)
    fused = sizes.query + 2 * sizes.key
    moved = sizes.query + sizes.key if _is_moved(args) else 0
    outputs = (2 if _is_reordered(args) else 1) * sizes.query
    sums = WIDE * sizes.micro_batch * sizes.heads * sizes.sequence
    return fused + moved + outputs + sums


def window_mask_bytes(args: NeoXArgs, sizes: Sizes) -> int:
    """The mask of a sliding window in `flash` attention without the flash-attn package: one for all layers."""
    window = args.sliding_window_width
    is_needed = "flash" in args.attention_config and window is not None and window < sizes.sequence
    return sizes.number * sizes.sequence**2 if is_needed else 0


def _unfused_bytes(sizes: Sizes, *, keeps_fused: bool) -> int:
    """torch's attention with dropout on the CPU: queries and keys scaled, every key and value once a query head, all of it fp32."""
    operand = WIDE * sizes.tokens * sizes.heads * sizes.head_dim
    values_are_view = not sizes.is_half and sizes.heads == sizes.kv_heads
    fused = sizes.query + 2 * sizes.key if keeps_fused or values_are_view else 0
    return (2 if values_are_view else 3) * operand + fused + 3 * WIDE * sizes.scores + sizes.query


def _global_bytes(args: NeoXArgs, sizes: Sizes, *, keeps_fused: bool) -> int:
    """Scaled queries, keys and values as the products keep them, the mask, the weights before and after dropout, and the output."""
    fused = sizes.query + 2 * sizes.key
    if sizes.heads != sizes.kv_heads:
        operands = 3 * sizes.query + (fused if keeps_fused else 0)  # each key and value once a query head
    else:
        operands = sizes.query + fused + (sizes.key if _is_moved(args) else 0)
    weights = sizes.number * sizes.scores
    if args.apply_query_key_layer_scaling and sizes.is_half:
        weights += WIDE * sizes.scores
    if args.attention_dropout:
        weights += (sizes.number + (1 if sizes.device == "cuda" else sizes.number)) * sizes.scores
    return operands + sizes.sequence**2 + weights + sizes.query


def mlp_bytes(args: NeoXArgs, sizes: Sizes) -> int:
    """Outputs of the widening projection, of the activation and of the gate."""
    factor = {"relu": 1, "softsign": 3, "bilinear": 3}.get(args.activation, 4 if args.gated_activation else 2)
    return factor * sizes.number * sizes.tokens * sizes.mlp_width
