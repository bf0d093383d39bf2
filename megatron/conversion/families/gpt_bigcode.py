"""StarCoder and SantaCoder: GPT-2 with one key/value head (`multi_query`), or with one for each query head."""

from __future__ import annotations

from typing import Any

from megatron.conversion.families.common import TIED
from megatron.conversion.families.gpt2_keys import (
    BUFFERS,
    LEARNED_POSITIONS_AND_BIASES,
    NO_ENCODER,
    SCALED_SCORES,
    WITHOUT_EFFECT,
    gpt2_modules,
    head_width,
    size_rows,
)
from megatron.conversion.mapping.architecture import Architecture
from megatron.conversion.mapping.family import Family
from megatron.conversion.mapping.packing import whole
from megatron.conversion.mapping.settings import Computed, Config, Table, Untranslatable


def _heads_of(config: Config) -> dict[str, Any]:
    heads = config["n_head"]
    return {"num_kv_heads": 1 if config.get("multi_query", True) else heads, "head_dim": head_width(config)}


def _multi_query(architecture: Architecture) -> dict[str, Any]:
    heads = architecture.num_kv_heads
    if heads not in (1, architecture.num_attention_heads):
        raise Untranslatable(f"num_kv_heads is {heads}, and it has 1 or as many as query heads")
    return {"multi_query": heads == 1}


FAMILY = Family(
    name="gpt_bigcode",
    model_type="gpt_bigcode",
    causal="GPTBigCodeForCausalLM",
    classifier="GPTBigCodeForSequenceClassification",
    settings=Table(
        (
            *size_rows(positions=1024, activation="gelu_pytorch_tanh"),
            Computed(("multi_query",), _heads_of, _multi_query),
            LEARNED_POSITIONS_AND_BIASES,
            SCALED_SCORES,
            NO_ENCODER,
            TIED,
        ),
        # Scores in fp32, which they always are; what multi_query says, too; the cache of an early program for generation.
        ignored=WITHOUT_EFFECT
        | {"attention_softmax_in_fp32", "scale_attention_softmax_in_fp32", "num_key_value_heads"}
        | {"inference_runner", "pad_key_length", "pre_allocate_kv_cache", "validate_runner_input"}
        | {"max_batch_size", "max_sequence_length"},
    ),
    # `[Q; k; v]` with one key/value head, else `[q; k; v]` of each head: both as ours.
    modules=gpt2_modules(whole, transposed=False),
    buffers=(*BUFFERS, r"transformer\.bias"),
    prefix="transformer.",
)
