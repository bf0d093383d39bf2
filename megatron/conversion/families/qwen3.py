"""Qwen3: Llama with norms of queries and keys, head by head."""

from __future__ import annotations

from megatron.conversion.families.common import (
    ATTENTION_BIAS,
    GATES,
    HEAD_NORMS,
    LLAMA_BUFFERS,
    RMS_NORM,
    UNTIED,
    llama_modules,
    sizes,
)
from megatron.conversion.families.windows import QWEN_WINDOW
from megatron.conversion.mapping.family import Family
from megatron.conversion.mapping.rope import Rotary
from megatron.conversion.mapping.settings import Always, Choice, Same, Table

FAMILY = Family(
    name="qwen3",
    model_type="qwen3",
    causal="Qwen3ForCausalLM",
    classifier="Qwen3ForSequenceClassification",
    settings=Table(
        (
            *sizes(kv_heads=32),
            Same("head_dim", "head_dim", 128),
            Same("max_position_embeddings", "max_position_embeddings", 32768),
            Choice("attention_bias", ATTENTION_BIAS, False),
            Always({"use_qk_layernorm": True, "qk_layernorm_scope": "head"}),
            QWEN_WINDOW,
            Choice("hidden_act", GATES, "silu"),
            *RMS_NORM,
            Rotary(),
            UNTIED,
        )
    ),
    modules=llama_modules(*HEAD_NORMS),
    buffers=LLAMA_BUFFERS,
)
