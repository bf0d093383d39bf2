"""Blocks equal the formulas of their residual streams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from megatron.model.block import Block
from megatron.model.stream import Stream
from tests.unit.model.builders import VARIANTS, build_args, build_model, dropout_keys

HIDDEN, LENGTH = 32, 16
X = torch.randn(LENGTH, 2, HIDDEN, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
STREAM = Stream(X, torch.arange(LENGTH).expand(2, LENGTH), dropout_keys=dropout_keys())


def build_block(settings: Mapping[str, Any]) -> Block:
    block = build_model(build_args(**settings)).layer(2)
    assert isinstance(block, Block)
    return block


def attend(block: Block, hidden: Tensor) -> Tensor:
    return block.attention(hidden, Stream(hidden, STREAM.position_ids))


def test_sequential_residual_feeds_the_attention_output_to_the_mlp() -> None:
    block = build_block(VARIANTS["llama"])
    hidden = X + attend(block, block.input_layernorm(X))
    expected = hidden + block.mlp(block.post_attention_layernorm(hidden))
    torch.testing.assert_close(block(STREAM).hidden, expected)


@pytest.mark.parametrize("variant", ["pythia", "parallel residual without an MLP bias"])
def test_parallel_residual_adds_attention_and_mlp_of_the_same_input(variant: str) -> None:
    block = build_block(VARIANTS[variant])
    expected = X + attend(block, block.input_layernorm(X)) + block.mlp(block.post_attention_layernorm(X))
    torch.testing.assert_close(block(STREAM).hidden, expected)


def test_parallel_residual_without_attention_bias_keeps_the_mlp_bias() -> None:
    block = build_block({"gpt_j_residual": True, "use_bias_in_attn_linear": False})
    expected = X + attend(block, block.input_layernorm(X)) + block.mlp(block.post_attention_layernorm(X))
    torch.testing.assert_close(block(STREAM).hidden, expected)


def test_tied_parallel_residual_has_one_norm_for_both() -> None:
    block = build_block(VARIANTS["gpt-j"])
    normalised = block.input_layernorm(X)
    torch.testing.assert_close(block(STREAM).hidden, X + attend(block, normalised) + block.mlp(normalised))
    assert not [name for name, _ in block.named_parameters() if "post_attention" in name]


def test_norms_behind_attention_and_mlp_act_on_what_is_added() -> None:
    block = build_block(VARIANTS["olmo2"])
    hidden = X + block.post_attention_layernorm(attend(block, X))
    expected = hidden + block.post_feedforward_layernorm(block.mlp(hidden))
    torch.testing.assert_close(block(STREAM).hidden, expected)
    norms = {name.split(".")[0] for name, _ in block.named_parameters() if name.endswith("layernorm.scale")}
    assert norms - {"attention"} == {"post_attention_layernorm", "post_feedforward_layernorm"}


@pytest.mark.parametrize("settings", [{}, {"gpt_j_residual": True}, {"norm_position": "post"}])
def test_dropout_of_both_branches_acts_in_training_only(settings: dict[str, Any]) -> None:
    block = build_block({**settings, "hidden_dropout": 0.5})
    expected = build_block(settings)(STREAM).hidden
    torch.testing.assert_close(block.eval()(STREAM).hidden, expected)
    dropped = block.train()(STREAM).hidden
    # An element that neither branch reaches keeps its value: a quarter of them when the two masks are independent.
    untouched = (dropped == X).float().mean().item()
    assert 0.15 < untouched < 0.35
