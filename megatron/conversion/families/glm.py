"""GLM-4 (9B): Llama with biases of queries, keys and values, a fused MLP, and rotations of neighbouring channels in half of each head."""

from __future__ import annotations

from megatron.conversion.families.common import (
    GATES,
    INTERLEAVED_HEADS,
    LLAMA_BUFFERS,
    UNTIED,
    head_width,
    llama_modules,
    rms_norm,
    sizes,
    unless_null,
)
from megatron.conversion.mapping.family import Family, Module
from megatron.conversion.mapping.packing import fused_gate_and_up
from megatron.conversion.mapping.rope import Rotary
from megatron.conversion.mapping.settings import Always, Choice, Same, Table

FAMILY = Family(
    name="glm",
    model_type="glm",
    causal="GlmForCausalLM",
    classifier="GlmForSequenceClassification",
    settings=Table(
        (
            *sizes(kv_heads=2),
            Same("head_dim", "head_dim", unless_null("head_dim", 128, head_width)),
            Same("max_position_embeddings", "max_position_embeddings", 131072),
            Choice("hidden_act", GATES, "silu"),
            *rms_norm(1.5625e-7),
            Rotary(fraction="partial_rotary_factor", default_fraction=0.5),
            Same("use_bias_in_attn_linear", "attention_bias", True),
            Always({"use_bias_in_attn_output": False, "use_bias_in_mlp": False}),
            UNTIED,
        )
    ),
    modules=llama_modules(
        INTERLEAVED_HEADS,
        Module("block.mlp.linear1", ("model.layers.{layer}.mlp.gate_up_proj",), fused_gate_and_up),
    ),
    buffers=LLAMA_BUFFERS,
)
