"""The parameters of a model from its configuration alone: names, shapes, and how they are cut over tensor-parallel ranks.

Layers have the numbers and names of `megatron.model.gpt.build_layer_specs`, parameters those of the modules; for L blocks: 0 embedding,
2 ... L + 1 blocks, L + 3 final norm, L + 4 head. Architectures that are not built yet follow GPT-NeoX's modules.
"""

from __future__ import annotations

from dataclasses import replace

from megatron.neox_arguments.arguments import NeoXArgs
from megatron.planning.model.experts import expert_tensors, has_experts
from megatron.planning.model.mixers import gmlp_tensors, mamba_tensors, rwkv_tensors
from megatron.planning.model.shapes import (
    LayerShape,
    TensorShape,
    column_linear,
    norm_tensors,
    prefixed,
    row_linear,
    whole_linear,
)

NORM_PLACES = ("input", "post_attention", "post_feedforward")
SOFT_PROMPT_TOKENS = 10
"""Default length of a soft prompt."""


def layer_shapes(args: NeoXArgs, *, vocab_size: int) -> list[LayerShape]:
    """Every layer of the model in order. vocab_size: rows of the embedding and of the head, with or without padding as the caller likes."""
    blocks: dict[tuple[str, bool], tuple[TensorShape, ...]] = {}
    layers = [LayerShape(0, "embedding", _embedding_tensors(args, vocab_size))]
    for layer in range(args.num_layers):
        kind = (args.attention_config[layer], has_experts(args, layer))
        if kind not in blocks:
            blocks[kind] = block_tensors(args, layer)
        layers.append(LayerShape(2 + layer, "transformer", blocks[kind]))
    final_norm = prefixed("norm", norm_tensors(args.norm, args.hidden_size, bias=args.use_bias_in_norms))
    layers.append(LayerShape(args.num_layers + 3, "norm", final_norm))
    layers.append(_head(args, vocab_size))
    return _with_soft_prompt(args, layers)


def count_parameters(args: NeoXArgs, *, vocab_size: int) -> int:
    """Parameters of the whole model, those of tied layers once."""
    layers = layer_shapes(args, vocab_size=vocab_size)
    return sum(tensor.elements for layer in layers if layer.tied_to is None for tensor in layer.tensors)


def block_tensors(args: NeoXArgs, layer: int) -> tuple[TensorShape, ...]:
    """The parameters of block number `layer`, from 0."""
    kind = args.attention_config[layer]
    if kind == "mamba":
        return mamba_tensors(args)
    if kind == "rwkv":
        return rwkv_tensors(args)
    if kind in ("gmlp", "amlp"):
        return gmlp_tensors(args, with_attention=kind == "amlp")
    attention = prefixed("attention", attention_tensors(args))
    mlp = prefixed("mlp", expert_tensors(args) if has_experts(args, layer) else mlp_tensors(args))
    norm = norm_tensors(args.norm, args.hidden_size, bias=args.use_bias_in_norms)
    before, between, after = (prefixed(f"{name}_layernorm", norm) for name in NORM_PLACES)
    if args.norm_position == "post":
        return *attention, *between, *mlp, *after
    if args.gpt_j_residual and args.gpt_j_tied:
        return *before, *attention, *mlp
    return *before, *attention, *between, *mlp


def attention_tensors(args: NeoXArgs) -> tuple[TensorShape, ...]:
    """Fused projection of queries, keys and values, output projection, norms of queries and keys."""
    query_width, kv_width = args.num_attention_heads * args.head_dim, args.num_kv_heads * args.head_dim
    fused = column_linear(args.hidden_size, query_width + 2 * kv_width, bias=args.use_bias_in_attn_linear)
    norms: list[TensorShape] = []
    if args.use_qk_layernorm:
        per_head = args.qk_layernorm_scope == "head"
        for name, width in (("query_layernorm", query_width), ("key_layernorm", kv_width)):
            channels = args.head_dim if per_head else width
            norm = norm_tensors(args.norm, channels, bias=args.use_bias_in_norms, sharded=not per_head)
            norms += prefixed(name, norm)
    output = row_linear(query_width, args.hidden_size, bias=args.use_bias_in_attn_output)
    return *prefixed("query_key_value", fused), *prefixed("dense", output), *norms


def mlp_tensors(args: NeoXArgs) -> tuple[TensorShape, ...]:
    """The widening projection, which also makes the gate, and the narrowing one."""
    width = args.mlp_width
    branches = 2 if args.gated_activation else 1
    return (
        *prefixed("linear1", column_linear(args.hidden_size, branches * width, bias=args.use_bias_in_mlp)),
        *prefixed("linear2", row_linear(width, args.hidden_size, bias=args.use_bias_in_mlp)),
    )


def _embedding_tensors(args: NeoXArgs, vocab_size: int) -> tuple[TensorShape, ...]:
    tokens = TensorShape("word_embeddings.weight", (vocab_size, args.hidden_size), 0)
    if args.pos_emb != "learned":
        return (tokens,)
    rows = args.max_position_embeddings + args.opt_pos_emb_offset
    return tokens, TensorShape("position_embeddings.weight", (rows, args.hidden_size))


def _head(args: NeoXArgs, vocab_size: int) -> LayerShape:
    number, shape = args.num_layers + 4, (vocab_size, args.hidden_size)
    if args.train_impl == "rm":  # one number a token instead of logits
        return LayerShape(number, "head", prefixed("rm_linear", whole_linear(args.hidden_size, 1, bias=False)))
    if args.no_weight_tying:
        output = column_linear(args.hidden_size, vocab_size, bias=args.use_bias_in_output_layer)
        return LayerShape(number, "head", prefixed("final_linear", output))
    return LayerShape(number, "head", (TensorShape("word_embeddings.weight", shape, 0),), tied_to=0)


def _with_soft_prompt(args: NeoXArgs, layers: list[LayerShape]) -> list[LayerShape]:
    """Soft prompt tuning, not built yet: a layer of embeddings behind the first one, and nothing else is trained."""
    section = args.soft_prompt_tuning
    if not section or not section.get("enabled"):
        return layers
    prompt = TensorShape(
        "soft_embedding_weight", (int(section.get("num_tokens", SOFT_PROMPT_TOKENS)), args.hidden_size)
    )
    frozen = [
        replace(layer, tensors=tuple(replace(tensor, is_trained=False) for tensor in layer.tensors)) for layer in layers
    ]
    return [frozen[0], LayerShape(1, "soft_prompt", (prompt,)), *frozen[1:]]
