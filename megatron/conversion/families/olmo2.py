"""OLMo 2: norms behind attention and MLP instead of before, and norms of the queries and keys of all heads together."""

from __future__ import annotations

from megatron.conversion.families.common import (
    ATTENTION_BIAS,
    GATES,
    HEAD_DIM_BESIDE,
    HEAD_NORMS,
    LLAMA_BUFFERS,
    SIZES,
    UNTIED,
    llama_modules,
    rms_norm,
)
from megatron.conversion.mapping.family import Family, Module
from megatron.conversion.mapping.rope import Rotary
from megatron.conversion.mapping.settings import Always, Choice, Same, Table

FAMILY = Family(
    name="olmo2",
    model_type="olmo2",
    causal="Olmo2ForCausalLM",
    classifier="Olmo2ForSequenceClassification",
    settings=Table(
        (
            *SIZES,
            HEAD_DIM_BESIDE,
            Same("max_position_embeddings", "max_position_embeddings", 2048),
            Choice("hidden_act", GATES, "silu"),
            *rms_norm(1e-5),
            Always({"norm_position": "post", "use_qk_layernorm": True, "qk_layernorm_scope": "all_heads"}),
            Rotary(),
            Choice("attention_bias", ATTENTION_BIAS, False),
            UNTIED,
        )
    ),
    modules=llama_modules(
        *HEAD_NORMS,
        Module("block.post_feedforward_layernorm", ("model.layers.{layer}.post_feedforward_layernorm",)),
    ),
    buffers=LLAMA_BUFFERS,
)
