"""ERNIE 4.5 without experts: Llama whose rotations are of neighbouring channels, with one key for all biases."""

from __future__ import annotations

from megatron.conversion.families.common import (
    GATES,
    INTERLEAVED_HEADS,
    LLAMA_BUFFERS,
    TIED,
    head_width,
    llama_modules,
    rms_norm,
    sizes,
    unless_null,
)
from megatron.conversion.mapping.family import Family
from megatron.conversion.mapping.rope import Rotary
from megatron.conversion.mapping.settings import Choice, Same, Table

_BIASES = ("use_bias_in_attn_linear", "use_bias_in_attn_output", "use_bias_in_mlp")

FAMILY = Family(
    name="ernie4_5",
    model_type="ernie4_5",
    causal="Ernie4_5ForCausalLM",
    settings=Table(
        (
            *sizes(kv_heads=2),
            Same("head_dim", "head_dim", unless_null("head_dim", 128, head_width)),
            Same("max_position_embeddings", "max_position_embeddings", 131072),
            Choice("hidden_act", GATES, "silu"),
            *rms_norm(1e-5),
            Rotary(default_base=500000.0),
            Choice("use_bias", {has_biases: dict.fromkeys(_BIASES, has_biases) for has_biases in (False, True)}, False),
            TIED,
        )
    ),
    modules=llama_modules(INTERLEAVED_HEADS),
    buffers=LLAMA_BUFFERS,
)
