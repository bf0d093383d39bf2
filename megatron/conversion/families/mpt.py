"""MPT (7B and 30B, not StoryWriter): ALiBi, no biases anywhere, and MLPs four times as wide as the model.

What its program computes with other values of `attn_config` transformers ignores, so that all of it is asked for here.
"""

from __future__ import annotations

from typing import Any

from megatron.conversion.families.common import TIED
from megatron.conversion.mapping.architecture import Architecture
from megatron.conversion.mapping.family import Family, Module
from megatron.conversion.mapping.packing import fused_heads
from megatron.conversion.mapping.settings import Always, Choice, Computed, Config, Fixed, Same, Table, Untranslatable

_BLOCK = "transformer.blocks.{layer}"
_ATTENTION = Table(
    (
        Fixed("alibi", True),
        Fixed("alibi_bias_max", 8),
        Fixed("attn_type", "multihead_attention"),
        Fixed("clip_qkv", None),
        Fixed("prefix_lm", False),
        Fixed("qk_ln", False),
        Fixed("softmax_scale", None),
    ),
    ignored=frozenset({"attn_impl"}),
)
"""The section `attn_config`."""


def _attention(config: Config) -> dict[str, Any]:
    try:
        return _ATTENTION.to_ours(config.get("attn_config") or {})
    except Untranslatable as problem:
        raise Untranslatable(*(f"attn_config: {sentence}" for sentence in problem.args)) from problem


def _attn_config(architecture: Architecture) -> dict[str, Any]:
    return {"attn_config": _ATTENTION.to_theirs(architecture)}


def _shape(config: Config) -> dict[str, Any]:
    width, heads = int(config["d_model"]), int(config["n_heads"])
    return {"num_kv_heads": heads, "head_dim": width // heads, "mlp_width": 4 * width}


FAMILY = Family(
    name="mpt",
    model_type="mpt",
    causal="MptForCausalLM",
    classifier="MptForSequenceClassification",
    older=("MPTForCausalLM",),
    settings=Table(
        (
            Same("vocab_size", "vocab_size"),
            Same("hidden_size", "d_model"),
            Same("num_layers", "n_layers"),
            Same("num_attention_heads", "n_heads"),
            Fixed("expansion_ratio", 4),
            Always(_shape),
            Same("max_position_embeddings", "max_seq_len", 2048),
            Always({"pos_emb": "alibi", "activation": "gelu"}),
            Computed(("attn_config",), _attention, _attn_config),
            Always({"norm": "layernorm", "use_bias_in_norms": False}),
            Choice("norm_type", {name: {} for name in ("low_precision_layernorm", "layernorm")}, "layernorm"),
            Same("norm_epsilon", "layer_norm_epsilon", 1e-5),
            Fixed("no_bias", True),
            TIED,
        ),
        # Where weights begin, how gradients are scaled, and a switch that ALiBi overrules.
        ignored=frozenset(
            {
                *("init_config", "init_device", "embedding_fraction", "emb_pdrop", "learned_pos_emb"),
                *("verbose", "tokenizer_name"),
            }
        ),
    ),
    modules=(
        Module("embedding.word_embeddings", ("transformer.wte",)),
        Module("block.input_layernorm", (f"{_BLOCK}.norm_1",)),
        Module("block.attention.query_key_value", (f"{_BLOCK}.attn.Wqkv",), fused_heads),
        Module("block.attention.dense", (f"{_BLOCK}.attn.out_proj",)),
        Module("block.post_attention_layernorm", (f"{_BLOCK}.norm_2",)),
        Module("block.mlp.linear1", (f"{_BLOCK}.ffn.up_proj",)),
        Module("block.mlp.linear2", (f"{_BLOCK}.ffn.down_proj",)),
        Module("norm.norm", ("transformer.norm_f",)),
        Module("head.final_linear", ("lm_head",)),
        Module("head.rm_linear", ("score",)),
    ),
    prefix="transformer.",
)
