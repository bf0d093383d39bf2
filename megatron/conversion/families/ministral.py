"""Ministral as transformers has it: Mistral with a window for each layer, which here is the same for all."""

from __future__ import annotations

from megatron.conversion.families.common import (
    GATES,
    LLAMA_BUFFERS,
    LLAMA_MODULES,
    RMS_NORM,
    UNTIED,
    head_width,
    sizes,
)
from megatron.conversion.families.windows import MINISTRAL_WINDOW
from megatron.conversion.mapping.family import Family
from megatron.conversion.mapping.rope import Rotary
from megatron.conversion.mapping.settings import Choice, Same, Table

FAMILY = Family(
    name="ministral",
    model_type="ministral",
    causal="MinistralForCausalLM",
    classifier="MinistralForSequenceClassification",
    settings=Table(
        (
            *sizes(kv_heads=8),
            Same("head_dim", "head_dim", head_width),
            Same("max_position_embeddings", "max_position_embeddings", 131072),
            MINISTRAL_WINDOW,
            Choice("hidden_act", GATES, "silu"),
            *RMS_NORM,
            Rotary(),
            UNTIED,
        )
    ),
    modules=LLAMA_MODULES,
    buffers=LLAMA_BUFFERS,
)
