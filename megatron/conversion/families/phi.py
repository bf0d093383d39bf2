"""Phi-1, Phi-1.5 and Phi-2: attention and MLP beside each other behind one norm, biases everywhere, also in the output layer."""

from __future__ import annotations

from typing import Any

from megatron.conversion.families.common import GELUS, SIZES, head_width, layer_norm, output_bias
from megatron.conversion.mapping.architecture import Architecture
from megatron.conversion.mapping.family import Family, Module
from megatron.conversion.mapping.packing import separate_heads
from megatron.conversion.mapping.rope import Rotary
from megatron.conversion.mapping.settings import (
    Always,
    Choice,
    Computed,
    Config,
    Fixed,
    Same,
    Table,
    Untranslatable,
    value_of,
)

_BLOCK = "model.layers.{layer}"


def _check(width: int, usual: int) -> None:
    if width != usual:
        raise Untranslatable(
            f"it normalises queries and keys {usual} channels wide (hidden_size / num_attention_heads), and its heads have {width}"
        )


def _ours(config: Config) -> dict[str, Any]:
    has_norms = value_of(config, "qk_layernorm", False)
    if has_norms:
        _check(value_of(config, "head_dim", head_width), head_width(config))
    return {"use_qk_layernorm": has_norms}


def _theirs(architecture: Architecture) -> dict[str, Any]:
    if architecture.use_qk_layernorm:
        _check(architecture.head_dim, architecture.hidden_size // architecture.num_attention_heads)
    return {"qk_layernorm": architecture.use_qk_layernorm}


FAMILY = Family(
    name="phi",
    model_type="phi",
    causal="PhiForCausalLM",
    classifier="PhiForSequenceClassification",
    settings=Table(
        (
            *SIZES,
            Same("head_dim", "head_dim", head_width),
            Same("max_position_embeddings", "max_position_embeddings", 2048),
            Choice("hidden_act", GELUS, "gelu_new"),
            *layer_norm("layer_norm_eps"),
            Rotary(fraction="partial_rotary_factor", default_fraction=0.5),
            Computed(("qk_layernorm",), _ours, _theirs),
            Always({"gpt_j_residual": True, "gpt_j_tied": True}),
            Always({"use_bias_in_attn_linear": True, "use_bias_in_attn_output": True}),
            Always({"use_bias_in_mlp": True}),
            Always(output_bias),
            Fixed("tie_word_embeddings", False),
        )
    ),
    modules=(
        Module("embedding.word_embeddings", ("model.embed_tokens",)),
        Module("block.input_layernorm", (f"{_BLOCK}.input_layernorm",)),
        Module(
            "block.attention.query_key_value",
            tuple(f"{_BLOCK}.self_attn.{part}_proj" for part in "qkv"),
            separate_heads,
        ),
        Module("block.attention.query_layernorm", (f"{_BLOCK}.self_attn.q_layernorm",)),
        Module("block.attention.key_layernorm", (f"{_BLOCK}.self_attn.k_layernorm",)),
        Module("block.attention.dense", (f"{_BLOCK}.self_attn.dense",)),
        Module("block.mlp.linear1", (f"{_BLOCK}.mlp.fc1",)),
        Module("block.mlp.linear2", (f"{_BLOCK}.mlp.fc2",)),
        Module("norm.norm", ("model.final_layernorm",)),
        Module("head.final_linear", ("lm_head",)),
        Module("head.rm_linear", ("score",)),
    ),
    buffers=(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",),
)
