"""Llama 1, 2, 3 and 3.1 to 3.3 and Code Llama, and what is called so by others (Yi, DeepSeek LLM, SmolLM, ...)."""

from __future__ import annotations

from megatron.conversion.families.common import (
    ATTENTION_BIAS,
    GATES,
    LLAMA_BUFFERS,
    LLAMA_MODULES,
    RMS_NORM,
    SIZES,
    UNTIED,
    head_width,
)
from megatron.conversion.mapping.family import Family
from megatron.conversion.mapping.rope import Rotary
from megatron.conversion.mapping.settings import Choice, Same, Table

FAMILY = Family(
    name="llama",
    model_type="llama",
    causal="LlamaForCausalLM",
    classifier="LlamaForSequenceClassification",
    settings=Table(
        (
            *SIZES,
            Same("head_dim", "head_dim", head_width),
            Same("max_position_embeddings", "max_position_embeddings", 2048),
            Choice("hidden_act", GATES, "silu"),
            *RMS_NORM,
            Rotary(),
            Choice("attention_bias", ATTENTION_BIAS, False),
            Same("use_bias_in_mlp", "mlp_bias", False),
            UNTIED,
        ),
        # Of the first files, and of SmolLM.
        ignored=frozenset({"max_sequence_length", "is_llama_config"}),
    ),
    modules=LLAMA_MODULES,
    buffers=LLAMA_BUFFERS,
)
