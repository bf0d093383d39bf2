"""OPT (all but 350M, which normalises behind attention and MLP) and Galactica. Positions begin at row 2 of their table."""

from __future__ import annotations

from typing import Any

from megatron.conversion.families.common import GELUS, TIED, one_kind_of_heads
from megatron.conversion.mapping.architecture import Architecture
from megatron.conversion.mapping.family import Family, Module
from megatron.conversion.mapping.packing import separate_heads
from megatron.conversion.mapping.settings import Always, Choice, Computed, Config, Fixed, Same, Table, Untranslatable

_BIASES = ("use_bias_in_attn_linear", "use_bias_in_attn_output", "use_bias_in_mlp")
_NORMS = {
    True: {"norm": "layernorm", "use_bias_in_norms": True},
    False: {"norm": "non_parametric_layernorm", "use_bias_in_norms": True},  # there is none
}
_BLOCK = "model.decoder.layers.{layer}"


def _embedding_width(config: Config) -> dict[str, Any]:
    width, model = config.get("word_embed_proj_dim"), config["hidden_size"]
    if width not in (None, model):
        raise Untranslatable(f"word_embed_proj_dim is {width}, and embeddings are as wide as the model here ({model})")
    return {}


def _word_embed_proj_dim(architecture: Architecture) -> dict[str, Any]:
    return {"word_embed_proj_dim": architecture.hidden_size}


FAMILY = Family(
    name="opt",
    model_type="opt",
    causal="OPTForCausalLM",
    classifier="OPTForSequenceClassification",
    settings=Table(
        (
            Same("vocab_size", "vocab_size"),
            Same("hidden_size", "hidden_size"),
            Same("num_layers", "num_hidden_layers"),
            Same("num_attention_heads", "num_attention_heads"),
            Same("mlp_width", "ffn_dim"),
            Always(one_kind_of_heads),
            Same("max_position_embeddings", "max_position_embeddings", 2048),
            Choice("activation_function", GELUS, "relu"),
            Always({"pos_emb": "learned", "opt_pos_emb_offset": 2, "norm_epsilon": 1e-5}),
            Choice("layer_norm_elementwise_affine", _NORMS, True),
            Choice("enable_bias", {has: dict.fromkeys(_BIASES, has) for has in (True, False)}, True),
            Fixed("do_layer_norm_before", True),
            Fixed("_remove_final_layer_norm", False),
            Computed(("word_embed_proj_dim",), _embedding_width, _word_embed_proj_dim),
            TIED,
        ),
        ignored=frozenset({"prefix", "learned_embeddings"}),  # what prompts begin with, and what no version reads
    ),
    modules=(
        Module("embedding.word_embeddings", ("model.decoder.embed_tokens",)),
        Module("embedding.position_embeddings", ("model.decoder.embed_positions",)),
        Module("block.input_layernorm", (f"{_BLOCK}.self_attn_layer_norm",)),
        Module(
            "block.attention.query_key_value",
            tuple(f"{_BLOCK}.self_attn.{part}_proj" for part in "qkv"),
            separate_heads,
        ),
        Module("block.attention.dense", (f"{_BLOCK}.self_attn.out_proj",)),
        Module("block.post_attention_layernorm", (f"{_BLOCK}.final_layer_norm",)),
        Module("block.mlp.linear1", (f"{_BLOCK}.fc1",)),
        Module("block.mlp.linear2", (f"{_BLOCK}.fc2",)),
        Module("norm.norm", ("model.decoder.final_layer_norm",)),
        Module("head.final_linear", ("lm_head",)),
        Module("head.rm_linear", ("score",)),
    ),
    buffers=(r"model\.decoder\.version",),
)
