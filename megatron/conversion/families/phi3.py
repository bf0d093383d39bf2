"""Phi-3 and Phi-4: Llama with projections fused, perhaps a sliding window, and perhaps only a part of each head rotated."""

from __future__ import annotations

from megatron.conversion.families.common import (
    GATES,
    HEAD_DIM_BESIDE,
    LLAMA_BUFFERS,
    SIZES,
    UNTIED,
    llama_modules,
    rms_norm,
)
from megatron.conversion.mapping.family import Family, Module
from megatron.conversion.mapping.packing import fused_gate_and_up, fused_heads
from megatron.conversion.mapping.rope import Rotary
from megatron.conversion.mapping.settings import Choice, Same, Table

FAMILY = Family(
    name="phi3",
    model_type="phi3",
    causal="Phi3ForCausalLM",
    classifier="Phi3ForSequenceClassification",
    settings=Table(
        (
            *SIZES,
            HEAD_DIM_BESIDE,
            Same("max_position_embeddings", "max_position_embeddings", 4096),
            Same("sliding_window_width", "sliding_window", None),
            Choice("hidden_act", GATES, "silu"),
            *rms_norm(1e-5),
            Rotary(fraction="partial_rotary_factor", scalings=()),
            UNTIED,
        )
    ),
    modules=llama_modules(
        Module("block.attention.query_key_value", ("model.layers.{layer}.self_attn.qkv_proj",), fused_heads),
        Module("block.mlp.linear1", ("model.layers.{layer}.mlp.gate_up_proj",), fused_gate_and_up),
    ),
    buffers=LLAMA_BUFFERS,
)
