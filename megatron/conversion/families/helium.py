"""Helium: Llama whose rotations are of neighbouring channels."""

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
)
from megatron.conversion.mapping.family import Family
from megatron.conversion.mapping.rope import Rotary
from megatron.conversion.mapping.settings import Choice, Computed, Same, Table

FAMILY = Family(
    name="helium",
    model_type="helium",
    causal="HeliumForCausalLM",
    classifier="HeliumForSequenceClassification",
    settings=Table(
        (
            *sizes(kv_heads=20),
            # The output projection is always a square, so heads are as wide together as the model, whatever the key says.
            Computed(
                ("head_dim",),
                ours=lambda config: {"head_dim": head_width(config)},
                theirs=lambda architecture: {"head_dim": architecture.head_dim},
            ),
            Same("max_position_embeddings", "max_position_embeddings", 4096),
            Choice("hidden_act", GATES, "silu"),
            *rms_norm(1e-8),
            Rotary(default_base=100000.0),
            Same("use_bias_in_attn_linear", "attention_bias", False),
            Same("use_bias_in_mlp", "mlp_bias", False),
            UNTIED,
        )
    ),
    modules=llama_modules(INTERLEAVED_HEADS),
    buffers=LLAMA_BUFFERS,
)
