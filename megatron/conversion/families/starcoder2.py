"""StarCoder2: rotary positions and grouped heads as in Llama, LayerNorm, biases and a plain MLP as in GPT-2, perhaps a sliding window."""

from __future__ import annotations

from megatron.conversion.families.common import (
    GELUS,
    HEAD_DIM_BESIDE,
    LLAMA_BUFFERS,
    TIED,
    layer_norm,
    llama_modules,
    sizes,
)
from megatron.conversion.mapping.family import Family, Module
from megatron.conversion.mapping.rope import Rotary
from megatron.conversion.mapping.settings import Choice, Same, Table

_TANH = "gelu_pytorch_tanh"
_BIASES = ("use_bias_in_attn_linear", "use_bias_in_attn_output", "use_bias_in_mlp")

FAMILY = Family(
    name="starcoder2",
    model_type="starcoder2",
    causal="Starcoder2ForCausalLM",
    classifier="Starcoder2ForSequenceClassification",
    settings=Table(
        (
            *sizes(kv_heads=2),
            HEAD_DIM_BESIDE,
            Same("max_position_embeddings", "max_position_embeddings", 4096),
            Same("sliding_window_width", "sliding_window", None),
            Choice("hidden_act", {_TANH: GELUS[_TANH], **GELUS}, _TANH),
            *layer_norm("norm_epsilon"),
            Rotary(),
            Choice("use_bias", {has_biases: dict.fromkeys(_BIASES, has_biases) for has_biases in (True, False)}, True),
            TIED,
        ),
        # What the published files say beside, in keys of the program they were trained with; transformers does not look at them.
        ignored=frozenset(
            {
                *("activation_function", "layer_norm_epsilon", "mlp_type", "norm_type"),
                *("attention_softmax_in_fp32", "scale_attention_softmax_in_fp32", "scale_attn_weights"),
            }
        ),
    ),
    modules=llama_modules(
        Module("block.mlp.linear1", ("model.layers.{layer}.mlp.c_fc",)),
        Module("block.mlp.linear2", ("model.layers.{layer}.mlp.c_proj",)),
    ),
    buffers=LLAMA_BUFFERS,
)
