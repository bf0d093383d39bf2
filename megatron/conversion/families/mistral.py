"""Mistral 7B, Mistral Nemo and Mistral Small: Llama with a sliding window, which later ones have left out again."""

from __future__ import annotations

from megatron.conversion.families.common import (
    GATES,
    LLAMA_BUFFERS,
    LLAMA_MODULES,
    RMS_NORM,
    UNTIED,
    head_width,
    sizes,
    unless_null,
)
from megatron.conversion.mapping.family import Family
from megatron.conversion.mapping.rope import Rotary
from megatron.conversion.mapping.settings import Choice, Same, Table

FAMILY = Family(
    name="mistral",
    model_type="mistral",
    causal="MistralForCausalLM",
    classifier="MistralForSequenceClassification",
    settings=Table(
        (
            *sizes(kv_heads=8),
            Same("head_dim", "head_dim", head_width),
            Same("max_position_embeddings", "max_position_embeddings", 131072),
            Same("sliding_window_width", "sliding_window", unless_null("sliding_window", 4096)),
            Choice("hidden_act", GATES, "silu"),
            *RMS_NORM,
            Rotary(),
            UNTIED,
        )
    ),
    modules=LLAMA_MODULES,
    buffers=LLAMA_BUFFERS,
)
