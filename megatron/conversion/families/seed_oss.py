"""Seed-OSS: Llama whose attention has biases of queries, keys and values, and of its output by another key."""

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
    name="seed_oss",
    model_type="seed_oss",
    causal="SeedOssForCausalLM",
    classifier="SeedOssForSequenceClassification",
    settings=Table(
        (
            *sizes(kv_heads=8),
            Same("head_dim", "head_dim", unless_null("head_dim", 128, head_width)),
            Same("max_position_embeddings", "max_position_embeddings", 524288),
            Choice("hidden_act", GATES, "silu"),
            *RMS_NORM,
            Rotary(),
            Same("use_bias_in_attn_linear", "attention_bias", True),
            Same("use_bias_in_attn_output", "attention_out_bias", False),
            Same("use_bias_in_mlp", "mlp_bias", False),
            UNTIED,
        )
    ),
    modules=LLAMA_MODULES,
    buffers=LLAMA_BUFFERS,
)
