"""GPT-NeoX-20B, Pythia, and the other models that GPT-NeoX trained with this shape of a block."""

from __future__ import annotations

from megatron.conversion.families.common import ATTENTION_BIAS, GELUS, UNTIED, layer_norm, one_kind_of_heads
from megatron.conversion.mapping.family import Family, Module
from megatron.conversion.mapping.rope import Rotary
from megatron.conversion.mapping.settings import Always, Choice, Same, Table

FAMILY = Family(
    name="neox",
    model_type="gpt_neox",
    causal="GPTNeoXForCausalLM",
    classifier="GPTNeoXForSequenceClassification",
    settings=Table(
        (
            Same("vocab_size", "vocab_size"),
            Same("hidden_size", "hidden_size"),
            Same("num_layers", "num_hidden_layers"),
            Same("num_attention_heads", "num_attention_heads"),
            Same("mlp_width", "intermediate_size"),
            Always(one_kind_of_heads),
            Same("max_position_embeddings", "max_position_embeddings", 2048),
            Choice("hidden_act", GELUS, "gelu"),
            *layer_norm("layer_norm_eps"),
            Rotary(base="rotary_emb_base", fraction="rotary_pct", default_fraction=0.25),
            Same("gpt_j_residual", "use_parallel_residual", True),
            Choice("attention_bias", ATTENTION_BIAS, True),
            Always({"use_bias_in_mlp": True}),
            UNTIED,
        )
    ),
    modules=(
        Module("embedding.word_embeddings", ("gpt_neox.embed_in",)),
        *(
            Module(f"block.{ours}", (f"gpt_neox.layers.{{layer}}.{theirs}",))
            for ours, theirs in {
                "input_layernorm": "input_layernorm",
                "attention.query_key_value": "attention.query_key_value",
                "attention.dense": "attention.dense",
                "post_attention_layernorm": "post_attention_layernorm",
                "mlp.linear1": "mlp.dense_h_to_4h",
                "mlp.linear2": "mlp.dense_4h_to_h",
            }.items()
        ),
        Module("norm.norm", ("gpt_neox.final_layer_norm",)),
        Module("head.final_linear", ("embed_out",)),
        Module("head.rm_linear", ("score",)),
    ),
    buffers=(r"gpt_neox\.layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)",),
    prefix="gpt_neox.",
)
