"""StableLM 3B and StableLM 2: Llama with LayerNorm, a part of each head rotated, and perhaps one norm before attention and MLP beside each other."""

from __future__ import annotations

from megatron.conversion.families.common import (
    GATES,
    LLAMA_BUFFERS,
    LLAMA_MODULES,
    UNTIED,
    head_width,
    layer_norm,
    sizes,
)
from megatron.conversion.mapping.family import Family
from megatron.conversion.mapping.rope import Rotary
from megatron.conversion.mapping.settings import Always, Choice, Fixed, Same, Table

FAMILY = Family(
    name="stablelm",
    model_type="stablelm",
    causal="StableLmForCausalLM",
    classifier="StableLmForSequenceClassification",
    settings=Table(
        (
            *sizes(kv_heads=32),
            Always(lambda config: {"head_dim": head_width(config)}),
            Same("max_position_embeddings", "max_position_embeddings", 4096),
            Choice("hidden_act", GATES, "silu"),
            *layer_norm("layer_norm_eps"),
            Rotary(fraction="partial_rotary_factor", default_fraction=0.25),
            Same("use_bias_in_attn_linear", "use_qkv_bias", False),
            Always({"use_bias_in_attn_output": False, "use_bias_in_mlp": False}),
            Choice(
                "use_parallel_residual",
                {
                    False: {"gpt_j_residual": False, "gpt_j_tied": False},
                    True: {"gpt_j_residual": True, "gpt_j_tied": True},
                },
                False,
            ),
            # Gains of its own for each head, where ours are one for all.
            Fixed("qk_layernorm", False),
            UNTIED,
        )
    ),
    modules=LLAMA_MODULES,
    buffers=LLAMA_BUFFERS,
)
