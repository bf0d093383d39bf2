"""GPT-2 and DistilGPT-2, whose projections in blocks are [inputs, outputs]."""

from __future__ import annotations

from megatron.conversion.families.common import TIED
from megatron.conversion.families.gpt2_keys import (
    BUFFERS,
    LEARNED_POSITIONS_AND_BIASES,
    NO_ENCODER,
    SCALED_SCORES,
    WITHOUT_EFFECT,
    gpt2_modules,
    one_kind_of_heads,
    size_rows,
)
from megatron.conversion.mapping.family import Family
from megatron.conversion.mapping.packing import fused_heads
from megatron.conversion.mapping.settings import Always, Fixed, Table

FAMILY = Family(
    name="gpt2",
    model_type="gpt2",
    causal="GPT2LMHeadModel",
    classifier="GPT2ForSequenceClassification",
    settings=Table(
        (
            *size_rows(positions=1024, activation="gelu_new"),
            Always(one_kind_of_heads),
            LEARNED_POSITIONS_AND_BIASES,
            SCALED_SCORES,
            Fixed("scale_attn_by_inverse_layer_idx", False),
            NO_ENCODER,
            TIED,
        ),
        # Scores in fp32 whatever the model's type: they always are.
        ignored=WITHOUT_EFFECT | {"reorder_and_upcast_attn"},
    ),
    modules=gpt2_modules(fused_heads, transposed=True),
    buffers=BUFFERS,
    prefix="transformer.",
)
