"""GPT-J and CodeGen: attention and MLP beside each other behind one norm, neighbouring channels rotated, an output layer with a bias."""

from __future__ import annotations

from typing import Any

from megatron.conversion.families.common import output_bias
from megatron.conversion.families.gpt2_keys import (
    BUFFERS,
    OUTSIDE_OF_BLOCKS,
    WITHOUT_EFFECT,
    head_width,
    one_kind_of_heads,
    size_rows,
)
from megatron.conversion.mapping.architecture import Architecture
from megatron.conversion.mapping.family import Family, Module
from megatron.conversion.mapping.packing import separate_interleaved_heads
from megatron.conversion.mapping.settings import Always, Computed, Config, Fixed, Row, Table, Untranslatable


def _rotary(config: Config) -> dict[str, Any]:
    width, rotated = head_width(config), config.get("rotary_dim", 64)
    if not isinstance(rotated, int) or not 0 < rotated <= width or rotated % 2:
        raise Untranslatable(
            f"rotary_dim is {rotated}, and heads have {width} channels, of which an even number can turn"
        )
    fraction = rotated / width
    if int(width * fraction) != rotated:
        raise Untranslatable(f"rotary_dim is {rotated}, and no rotary_pct gives exactly that of {width} channels")
    return {"pos_emb": "rotary", "rotary_pct": fraction}


def _rotary_dim(architecture: Architecture) -> dict[str, Any]:
    if architecture.pos_emb != "rotary":
        raise Untranslatable(f"it has no pos_emb {architecture.pos_emb!r}, only 'rotary'")
    return {"rotary_dim": int(architecture.head_dim * architecture.rotary_pct)}


ROWS: tuple[Row, ...] = (
    *size_rows(positions=2048, activation="gelu_new"),
    Always(one_kind_of_heads),
    Computed(("rotary_dim",), _rotary, _rotary_dim),
    Always({"gpt_j_residual": True, "gpt_j_tied": True, "use_bias_in_mlp": True}),
    Always(output_bias),
    Fixed("tie_word_embeddings", False),
)
IGNORED = WITHOUT_EFFECT | {"scale_attn_weights"}
BLOCK = "transformer.h.{layer}"
MODULES = (
    *OUTSIDE_OF_BLOCKS,
    Module("block.input_layernorm", (f"{BLOCK}.ln_1",)),
    Module("block.attention.dense", (f"{BLOCK}.attn.out_proj",)),
    Module("block.mlp.linear1", (f"{BLOCK}.mlp.fc_in",)),
    Module("block.mlp.linear2", (f"{BLOCK}.mlp.fc_out",)),
)
"""All but the projections of queries, keys and values."""

FAMILY = Family(
    name="gptj",
    model_type="gptj",
    causal="GPTJForCausalLM",
    classifier="GPTJForSequenceClassification",
    settings=Table(ROWS, IGNORED),
    modules=(
        *MODULES,
        Module(
            "block.attention.query_key_value",
            tuple(f"{BLOCK}.attn.{part}_proj" for part in "qkv"),
            separate_interleaved_heads,
        ),
    ),
    buffers=BUFFERS,
    prefix="transformer.",
)
