"""The architecture, on one page: model arguments become the list of layer specs that every executor runs.

Numbers are those of GPT-NeoX checkpoints, for L blocks: 0 embedding, 2 ... L + 1 blocks, L + 3 final norm, L + 4 head (1 and L + 2 are
functions without parameters there). Every choice between variants is made here, through the registries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from megatron.components import ALL_HEADS_NORMS, ATTENTION, NORMS, POSITIONS
from megatron.fused_kernels.dispatch import choose
from megatron.model.activations import build_activation, choose_fused_activation
from megatron.model.attention.base import Attention
from megatron.model.attention.explicit import Softmaxes
from megatron.model.block import Block, ParallelResidualBlock, PostNormBlock, SequentialResidualBlock
from megatron.model.dropout import HiddenDropout
from megatron.model.embedding import Embedding
from megatron.model.head import FinalNorm, Head, RewardHead, TiedHead
from megatron.model.init_methods import build_init_method
from megatron.model.mlp.base import MLP
from megatron.model.mlp.gated import GatedMLP
from megatron.model.mlp.plain import PlainMLP
from megatron.model.positions.base import Positions
from megatron.model.products import choose_products
from megatron.model.spec import BuildContext, LayerSpec
from megatron.mpu.linear_cross_entropy_rows import RowKernels
from megatron.mpu.shard import InitMethod

if TYPE_CHECKING:
    from megatron.neox_arguments import NeoXArgs

EMBEDDING_WEIGHT = "word_embeddings.weight"


def build_layer_specs(args: NeoXArgs, *, vocab_size: int, padded_vocab_size: int) -> list[LayerSpec]:
    """The model as data; specs can be pickled. vocab_size: real rows of the vocabulary; padded_vocab_size: rows in this layout."""
    norm, head = args.num_layers + 3, args.num_layers + 4
    vocabulary = {"vocab_size": padded_vocab_size, "valid_rows": vocab_size, "hidden_size": args.hidden_size}
    is_tied = not args.no_weight_tying and args.train_impl != "rm"
    tie = EMBEDDING_WEIGHT if is_tied else ""

    def spec(number: int, name: str, build: Callable[..., nn.Module], *values: Any, **tying: Any) -> LayerSpec:
        return LayerSpec(number, name, partial(_place, partial(build, args, *values), args.sequence_parallel), **tying)

    return [
        spec(0, "embedding", _build_embedding, vocabulary, tied_parameter=tie),
        *(spec(2 + layer, "transformer", _build_block, layer) for layer in range(args.num_layers)),
        spec(norm, "norm", _build_final_norm),
        spec(head, "head", _build_head, vocabulary, tied_to=0 if is_tied else None, tied_parameter=tie),
    ]


def _place(build: Callable[[BuildContext], nn.Module], sequence_parallel: bool, context: BuildContext) -> nn.Module:
    return build(replace(context, sequence_parallel=sequence_parallel))


def _build_embedding(args: NeoXArgs, vocabulary: dict[str, int], context: BuildContext) -> Embedding:
    return Embedding(
        **vocabulary,
        positions=_positions(args, context),
        dropout=args.hidden_dropout,
        init=_init(args),
        context=context,
    )


def _build_block(args: NeoXArgs, layer: int, context: BuildContext) -> Block:
    block, norms = _kind_of_block(args)
    built = block(
        attention=_attention(args, layer, context),
        mlp=_mlp(args, context),
        dropout=_block_dropout(args, layer, context),
        **{name: _norm(args, context) for name in norms},
    )
    choose_products(built, args)
    return built


def _kind_of_block(args: NeoXArgs) -> tuple[type[Block], tuple[str, ...]]:
    """The class of the blocks, and the norms that they have."""
    if args.norm_position == "post":
        return PostNormBlock, ("post_attention_layernorm", "post_feedforward_layernorm")
    if not args.gpt_j_residual:
        return SequentialResidualBlock, ("input_layernorm", "post_attention_layernorm")
    norms = ("input_layernorm",) if args.gpt_j_tied else ("input_layernorm", "post_attention_layernorm")
    return ParallelResidualBlock, norms


def _build_final_norm(args: NeoXArgs, context: BuildContext) -> FinalNorm:
    return FinalNorm(_norm(args, context))


def _build_head(args: NeoXArgs, vocabulary: dict[str, int], context: BuildContext) -> nn.Module:
    if args.train_impl == "rm":
        return RewardHead(args.hidden_size, init=_init(args), context=context)
    shared: dict[str, Any] = {
        **vocabulary,
        "init": _init(args),
        "context": context,
        "row_kernels": _row_kernels(context),
    }
    return Head(**shared, use_bias=args.use_bias_in_output_layer) if args.no_weight_tying else TiedHead(**shared)


def _row_kernels(context: BuildContext) -> RowKernels | None:
    """On a GPU; a CPU goes through blocks of rows, which stay in its caches."""
    if torch.device(context.device).type != "cuda":
        return None
    functions = (
        choose(name, wanted=True, device=context.device) for name in ("softmax_statistics", "softmax_gradient_")
    )
    return RowKernels(*functions)


def _attention(args: NeoXArgs, layer: int, context: BuildContext) -> Attention:
    attention: Attention = ATTENTION.load(args.attention_config[layer])(
        hidden_size=args.hidden_size,
        num_heads=args.num_attention_heads,
        num_kv_heads=args.num_kv_heads,
        head_dim=args.head_dim,
        layer=layer,
        positions=_positions(args, context),
        dropout=args.attention_dropout,
        use_bias=args.use_bias_in_attn_linear,
        use_output_bias=args.use_bias_in_attn_output,
        init=_init(args),
        output_init=_output_init(args),
        context=context,
        window=args.sliding_window_width,
        query_norm=_heads_norm(args, args.num_attention_heads, context),
        key_norm=_heads_norm(args, args.num_kv_heads, context),
        query_key_layer_scaling=args.apply_query_key_layer_scaling,
        recompute_scores=args.checkpoint_activations and args.recompute_granularity == "selective",
        sdpa_backend=args.sdpa_backend,
        softmaxes=_softmaxes(args, context),
    )
    return attention


def _softmaxes(args: NeoXArgs, context: BuildContext) -> Softmaxes:
    return Softmaxes(
        causal=choose("causal_softmax", wanted=args.scaled_upper_triang_masked_softmax_fusion, device=context.device),
        masked=choose("masked_softmax", wanted=args.scaled_masked_softmax_fusion, device=context.device),
    )


def _mlp(args: NeoXArgs, context: BuildContext) -> MLP:
    mlp = GatedMLP if args.gated_activation else PlainMLP
    return mlp(
        hidden_size=args.hidden_size,
        width=args.mlp_width,
        activation=build_activation(args.activation, tanh_gelu=args.bias_gelu_fusion),
        fused=choose_fused_activation(args, context.device),
        use_bias=args.use_bias_in_mlp,
        init=_init(args),
        output_init=_output_init(args),
        context=context,
    )


def _block_dropout(args: NeoXArgs, layer: int, context: BuildContext) -> HiddenDropout:
    fused_add = choose("bias_dropout_add", wanted=True, device=context.device) if args.bias_dropout_fusion else None
    return HiddenDropout(probability=args.hidden_dropout, layer=layer, context=context, fused_add=fused_add)


def _norm(args: NeoXArgs, context: BuildContext) -> nn.Module:
    norm: nn.Module = NORMS.load(args.norm)(args.hidden_size, fused=_fuses_norm(args), **_norm_options(args, context))
    return norm


def _heads_norm(args: NeoXArgs, heads: int, context: BuildContext) -> nn.Module | None:
    """The norm of this many query or key heads, if they are normalised."""
    if not args.use_qk_layernorm:
        return None
    options = _norm_options(args, context)
    if args.qk_layernorm_scope == "all_heads":
        together: nn.Module = ALL_HEADS_NORMS.load(args.norm)(heads * args.head_dim, **options)
        return together
    # The ranks share the weights, and each has heads of its own.
    each: nn.Module = NORMS.load(args.norm)(args.head_dim, is_split=True, fused=_fuses_norm(args), **options)
    return each


def _fuses_norm(args: NeoXArgs) -> bool:
    return args.rmsnorm_fusion if args.norm == "rmsnorm" else args.layernorm_fusion


def _norm_options(args: NeoXArgs, context: BuildContext) -> dict[str, Any]:
    return {"epsilon": args.norm_epsilon, "use_bias": args.use_bias_in_norms, "context": context}


def _positions(args: NeoXArgs, context: BuildContext) -> Positions:
    positions: Positions = POSITIONS.load(args.pos_emb)(
        max_positions=args.max_position_embeddings,
        head_dim=args.head_dim,
        rotary_fraction=args.rotary_pct,
        rotary_base=args.rotary_emb_base,
        rotary_scaling=tuple((args.rope_scaling or {}).items()),
        offset=args.opt_pos_emb_offset,
        rotary=choose("rotary", wanted=args.rope_fusion and args.pos_emb == "rotary", device=context.device),
    )
    return positions


def _init(args: NeoXArgs) -> InitMethod:
    return _init_method(args, args.init_method)


def _output_init(args: NeoXArgs) -> InitMethod:
    return _init_method(args, args.output_layer_init_method)


def _init_method(args: NeoXArgs, name: str) -> InitMethod:
    return build_init_method(name, std=args.init_method_std, num_layers=args.num_layers, hidden_size=args.hidden_size)
