"""Qwen 1.5, Qwen2 and Qwen2.5: Llama with biases of queries, keys and values alone."""

from __future__ import annotations

from megatron.conversion.families.common import (
    GATES,
    HEAD_DIM_BESIDE,
    LLAMA_BUFFERS,
    LLAMA_MODULES,
    RMS_NORM,
    UNTIED,
    sizes,
)
from megatron.conversion.families.windows import QWEN_WINDOW
from megatron.conversion.mapping.family import Family
from megatron.conversion.mapping.rope import Rotary
from megatron.conversion.mapping.settings import Always, Choice, Same, Table

FAMILY = Family(
    name="qwen2",
    model_type="qwen2",
    causal="Qwen2ForCausalLM",
    classifier="Qwen2ForSequenceClassification",
    settings=Table(
        (
            *sizes(kv_heads=32),
            HEAD_DIM_BESIDE,
            Same("max_position_embeddings", "max_position_embeddings", 32768),
            Always({"use_bias_in_attn_linear": True, "use_bias_in_attn_output": False}),
            QWEN_WINDOW,
            Choice("hidden_act", GATES, "silu"),
            *RMS_NORM,
            Rotary(),
            UNTIED,
        )
    ),
    modules=LLAMA_MODULES,
    buffers=LLAMA_BUFFERS,
)
