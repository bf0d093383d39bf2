"""Names of parameters over the generations of GPT-NeoX, one by one."""

from __future__ import annotations

import pytest

from megatron.conversion.legacy.names import Traits, find_reading, is_parameter, unused_names
from megatron.conversion.mapping.packing import Heads

PLAIN = Traits(Heads(4, 4, 8), is_gated=False, is_parallel=False, has_tied_norm=False)
GATED = Traits(Heads(4, 4, 8), is_gated=True, is_parallel=False, has_tied_norm=False)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("norm.scale", "norm.scale"),
        ("norm.scale", "norm.weight"),
        ("norm.scale", "norm.norm.weight"),
        ("input_layernorm.bias", "input_layernorm.norm.bias"),
        ("post_attention_layernorm.scale", "mlp.layer_norm_weight"),
        ("post_attention_layernorm.bias", "mlp.layer_norm_bias"),
        ("attention.query_key_value.bias", "attention.qkv.bias"),
        ("attention.dense.bias", "attention.proj.bias"),
        ("mlp.linear1.bias", "mlp.dense_h_to_4h.bias"),
        ("mlp.linear1.weight", "mlp.fc1_weight"),
        ("mlp.linear2.bias", "mlp.dense_4h_to_h.bias"),
        ("mlp.linear2.weight", "mlp.w2.weight"),
        ("mlp.linear2.bias", "mlp.fc2_bias"),
        ("position_embeddings.weight", "position_embeddings.weight"),
    ],
)
def test_a_parameter_is_found_under_each_of_its_names(ours: str, theirs: str) -> None:
    reading = find_reading(ours, {theirs, "other.weight"}, PLAIN)
    assert reading is not None
    assert reading.theirs == (theirs,)


def test_a_gated_mlp_is_found_in_two_tensors_if_both_are_there() -> None:
    reading = find_reading("mlp.linear1.weight", {"mlp.w1.weight", "mlp.w3.weight"}, GATED)
    assert reading is not None
    assert reading.theirs == ("mlp.w3.weight", "mlp.w1.weight")
    assert find_reading("mlp.linear1.weight", {"mlp.w1.weight"}, GATED) is None
    assert find_reading("mlp.linear1.weight", {"mlp.w1.weight", "mlp.w3.weight"}, PLAIN) is None


def test_a_weight_of_another_norm_is_not_taken_for_ours() -> None:
    assert find_reading("norm.weight", {"norm.scale"}, PLAIN) is None
    assert find_reading("input_layernorm.weight", {"post_attention_layernorm.weight", "norm.weight"}, PLAIN) is None


def test_what_is_no_weight_is_told_from_what_is_unknown() -> None:
    assert not is_parameter("attention.rotary_emb.inv_freq")
    assert not is_parameter("attention.alibi_embed.slopes")
    assert not is_parameter("attention.core_attention._extra_state")
    assert not is_parameter("_extra_state")
    there = ["attention.rotary_emb.inv_freq", "mlp._extra_state", "a.weight", "post_attention_layernorm.weight"]
    assert unused_names(there, {"a.weight"}, PLAIN) == ["post_attention_layernorm.weight"]
    tied = Traits(PLAIN.heads, is_gated=False, is_parallel=True, has_tied_norm=True)
    assert unused_names(there, {"a.weight"}, tied) == []
