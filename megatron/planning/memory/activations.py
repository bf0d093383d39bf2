"""What autograd keeps of one micro-batch until its backward pass, in bytes a device, layer by layer.

Counted are tensors that an operation saves for its backward pass, each memory once, in the modules of `megatron.model`; views cost
nothing. `device` matters where torch saves other things on a GPU: statistics of a LayerNorm are fp32 there; RMSNorm is one operation
there, on the CPU several that each save. Dropout keeps a word for each token, by which it draws the mask again.

Letters: T tokens of a micro-batch, `T'` the part of them that a rank has between tensor-parallel regions, e bytes a number, h hidden,
q and k local widths of queries and of keys, w local MLP width.
"""

from __future__ import annotations

from megatron.neox_arguments.arguments import NeoXArgs
from megatron.neox_arguments.keys.attention_types import WHOLE_BLOCKS
from megatron.planning.memory.estimates import experts_bytes, mixer_bytes
from megatron.planning.memory.fused_head import fuses_head
from megatron.planning.memory.kept_by_attention import attention_bytes
from megatron.planning.memory.kept_by_norms import norm_cost
from megatron.planning.memory.sizes import INTEGER, WIDE, Sizes
from megatron.planning.model.experts import has_experts


def block_bytes(args: NeoXArgs, sizes: Sizes, layer: int, *, is_without_scores: bool = False) -> int:
    """What block number `layer`, from 0, keeps, its input included where an operation in it keeps that.

    is_without_scores: attention's scores and what follows from them are recomputed.
    """
    kind = args.attention_config[layer]
    if kind in WHOLE_BLOCKS:
        return mixer_bytes(args, sizes, kind)
    inner = experts_bytes(args, sizes) if has_experts(args, layer) else mlp_bytes(args, sizes)
    attention = attention_bytes(args, sizes, kind, is_without_scores=is_without_scores)
    return _stream_bytes(args, sizes) + attention + inner


def block_keeps_input(args: NeoXArgs, sizes: Sizes, layer: int) -> bool:
    """Whether `block_bytes` counts the block's input."""
    if args.norm_position == "post" or args.attention_config[layer] in WHOLE_BLOCKS:
        return True
    return norm_cost(args.norm, sizes, vectors=sizes.stream_tokens, width=args.hidden_size).keeps_input


def embedding_bytes(args: NeoXArgs, sizes: Sizes) -> int:
    """What the embedding keeps: the rows it looked up, and what its dropout keeps."""
    rows = INTEGER * sizes.tokens + (sizes.tokens if sizes.tensor > 1 else 0)
    positions = INTEGER * sizes.tokens if args.pos_emb == "learned" else 0
    return rows + positions + (WIDE * sizes.stream_tokens if args.hidden_dropout else 0)


def final_norm_bytes(args: NeoXArgs, sizes: Sizes) -> int:
    """What the final norm keeps, its input included."""
    cost = norm_cost(args.norm, sizes, vectors=sizes.stream_tokens, width=args.hidden_size)
    return cost.bytes + (sizes.stream if cost.keeps_input else 0)


def head_bytes(args: NeoXArgs, sizes: Sizes) -> int:
    """What the head keeps: its input, which a tied head gathers first under sequence parallelism; nothing where it computes the loss."""
    if fuses_head(args):
        return 0
    return sizes.stream if args.no_weight_tying else sizes.number * sizes.tokens * sizes.hidden


def loss_bytes(sizes: Sizes, *, columns: int) -> int:
    """What the loss keeps: local logits of `columns` columns, and of each token its partition function, label, masks and weight."""
    return sizes.number * sizes.tokens * columns + sizes.tokens * (WIDE + INTEGER + 1 + 1 + WIDE)


def _stream_bytes(args: NeoXArgs, sizes: Sizes) -> int:
    """Norms, their inputs and outputs, and dropout."""
    cost = norm_cost(args.norm, sizes, vectors=sizes.stream_tokens, width=args.hidden_size)
    dropout = 2 * WIDE * sizes.stream_tokens if args.hidden_dropout else 0
    if args.norm_position == "post":
        # Both projections keep what they read from the stream, both norms what attention and MLP give.
        return 2 * (sizes.stream + cost.bytes) + (2 * sizes.stream if cost.keeps_input else 0) + dropout
    norms = 1 if args.gpt_j_residual and args.gpt_j_tied else 2
    inputs = 1 if args.gpt_j_residual else 2
    return norms * (sizes.stream + cost.bytes) + (inputs * sizes.stream if cost.keeps_input else 0) + dropout


def mlp_bytes(args: NeoXArgs, sizes: Sizes) -> int:
    """Outputs of the widening projection, of the activation and of the gate."""
    factor = {"relu": 1, "softsign": 3, "bilinear": 3}.get(args.activation, 4 if args.gated_activation else 2)
    return factor * sizes.number * sizes.tokens * sizes.mlp_width
