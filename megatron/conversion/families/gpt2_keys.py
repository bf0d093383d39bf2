"""What GPT-2 and the models that took over its names (GPT-J, CodeGen, GPT-BigCode) have in common."""

from __future__ import annotations

from typing import Any

from megatron.conversion.families.common import GELUS, layer_norm
from megatron.conversion.mapping.family import Module
from megatron.conversion.mapping.packing import Cut
from megatron.conversion.mapping.settings import Always, Choice, Config, Fixed, Row, Same

# Summaries of the last hidden state, for other heads of GPT-2; lengths and switches that no version reads.
WITHOUT_EFFECT = frozenset(
    {
        *("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels", "summary_first_dropout"),
        *("n_ctx", "rotary"),
    }
)
SCALED_SCORES = Fixed("scale_attn_weights", True)
NO_ENCODER = Fixed("add_cross_attention", False)
LEARNED_POSITIONS_AND_BIASES = Always(
    {
        "pos_emb": "learned",
        "use_bias_in_attn_linear": True,
        "use_bias_in_attn_output": True,
        "use_bias_in_mlp": True,
    }
)
BUFFERS = (r"transformer\.h\.\d+\.attn\.(bias|masked_bias|causal_mask|embed_positions)",)
OUTSIDE_OF_BLOCKS = (
    Module("embedding.word_embeddings", ("transformer.wte",)),
    Module("embedding.position_embeddings", ("transformer.wpe",)),
    Module("norm.norm", ("transformer.ln_f",)),
    Module("head.final_linear", ("lm_head",)),
    Module("head.rm_linear", ("score",)),
)


def head_width(config: Config) -> int:
    """Channels of a head."""
    return int(config["n_embd"]) // int(config["n_head"])


def one_kind_of_heads(config: Config) -> dict[str, Any]:
    """As many key/value heads as query heads, which together are as wide as the model."""
    return {"num_kv_heads": config["n_head"], "head_dim": head_width(config)}


def size_rows(*, positions: int, activation: str) -> tuple[Row, ...]:
    """positions, activation: what transformers takes where the key is missing."""
    return (
        Same("vocab_size", "vocab_size"),
        Same("hidden_size", "n_embd"),
        Same("num_layers", "n_layer"),
        Same("num_attention_heads", "n_head"),
        Same("mlp_width", "n_inner", lambda config: 4 * int(config["n_embd"])),
        Same("max_position_embeddings", "n_positions", positions),
        Choice("activation_function", GELUS, activation),
        *layer_norm("layer_norm_epsilon"),
    )


def gpt2_modules(cut: Cut, *, transposed: bool) -> tuple[Module, ...]:
    """cut: of queries, keys and values, which are in one tensor; transposed: the matrices of blocks are [inputs, outputs]."""
    block = "transformer.h.{layer}"
    return (
        *OUTSIDE_OF_BLOCKS,
        Module("block.input_layernorm", (f"{block}.ln_1",)),
        Module("block.attention.query_key_value", (f"{block}.attn.c_attn",), cut, transposed),
        Module("block.attention.dense", (f"{block}.attn.c_proj",), transposed=transposed),
        Module("block.post_attention_layernorm", (f"{block}.ln_2",)),
        Module("block.mlp.linear1", (f"{block}.mlp.c_fc",), transposed=transposed),
        Module("block.mlp.linear2", (f"{block}.mlp.c_proj",), transposed=transposed),
    )
