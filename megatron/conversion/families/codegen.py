"""CodeGen: GPT-J with one tensor for queries, values and keys, in four parts as the four cores had it that it was trained on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from megatron.conversion.families.gpt2_keys import BUFFERS
from megatron.conversion.families.gptj import BLOCK, IGNORED, MODULES, ROWS
from megatron.conversion.mapping.architecture import Architecture
from megatron.conversion.mapping.family import Family, Module
from megatron.conversion.mapping.packing import Heads, separate_interleaved_heads
from megatron.conversion.mapping.settings import Computed, Config, Table, Untranslatable

_PARTS = 4


def in_four_parts(rows: Tensor, heads: Heads) -> tuple[Tensor, ...]:
    """`[Q_0; V_0; K_0; Q_1; ...]`, each a quarter of the heads."""
    query, key, value = separate_interleaved_heads(rows, heads)
    parts = [whole.view(_PARTS, -1) for whole in (query, value, key)]
    return (torch.cat(parts, dim=1).flatten(),)


def _check(heads: int) -> dict[str, Any]:
    if heads % _PARTS:
        raise Untranslatable(f"it has {heads} attention heads, and these models are in {_PARTS} parts of whole heads")
    return {}


def _ours(config: Config) -> dict[str, Any]:
    return _check(config["n_head"])


def _theirs(architecture: Architecture) -> dict[str, Any]:
    return _check(architecture.num_attention_heads)


FAMILY = Family(
    name="codegen",
    model_type="codegen",
    causal="CodeGenForCausalLM",
    settings=Table((*ROWS, Computed((), _ours, _theirs)), IGNORED),
    modules=(*MODULES, Module("block.attention.query_key_value", (f"{BLOCK}.attn.qkv_proj",), in_four_parts)),
    buffers=BUFFERS,
    prefix="transformer.",
)
