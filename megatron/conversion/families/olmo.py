"""OLMo: Llama with norms that have no parameters."""

from __future__ import annotations

from megatron.conversion.families.common import (
    ATTENTION_BIAS,
    GATES,
    HEAD_DIM_BESIDE,
    LLAMA_BUFFERS,
    LLAMA_MODULES,
    SIZES,
    UNTIED,
)
from megatron.conversion.mapping.family import Family
from megatron.conversion.mapping.rope import Rotary
from megatron.conversion.mapping.settings import Always, Choice, Fixed, Same, Table

FAMILY = Family(
    name="olmo",
    model_type="olmo",
    causal="OlmoForCausalLM",
    classifier="OlmoForSequenceClassification",
    settings=Table(
        (
            *SIZES,
            HEAD_DIM_BESIDE,
            Same("max_position_embeddings", "max_position_embeddings", 2048),
            Choice("hidden_act", GATES, "silu"),
            Always({"norm": "non_parametric_layernorm", "norm_epsilon": 1e-5}),
            Rotary(),
            Choice("attention_bias", ATTENTION_BIAS, False),
            Fixed("clip_qkv", None),
            UNTIED,
        )
    ),
    modules=LLAMA_MODULES,
    buffers=LLAMA_BUFFERS,
)
