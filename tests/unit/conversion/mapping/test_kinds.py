"""A damaged `config.json` is answered with a sentence, whatever its values are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import pytest

from megatron.conversion.mapping.choose import families, family_of
from megatron.conversion.mapping.kinds import KINDS, wrong_values
from megatron.errors import CheckpointError
from tests.hugging_face_configurations import MODELS

ODD_VALUES = ("8", "x", -1, 0, [], [4], ["a"], {}, {"a": 1}, True, 1.5, 10**30, math.nan)
BY_FAMILY = {model.family: model for model in MODELS.values()}
LLAMA: Mapping[str, Any] = {**MODELS["llama-1"].config, "architectures": ["LlamaForCausalLM"]}


def test_every_key_that_is_read_has_a_kind() -> None:
    read = {key for family in families() for row in family.settings.rows for key in row.keys}
    assert read <= KINDS.keys()


@pytest.mark.parametrize("family", BY_FAMILY)
def test_no_value_of_any_key_makes_anything_but_a_sentence(family: str) -> None:
    config = {**BY_FAMILY[family].config, "architectures": [BY_FAMILY[family].architecture]}
    refused = 0
    for key in KINDS.keys() | {"model_type"}:
        for value in ODD_VALUES:
            try:
                family_of({**config, key: value}).architecture(deepcopy({**config, key: value}))
            except CheckpointError:
                refused += 1
    assert refused > 400


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hidden_size": "32"}, "hidden_size is '32', and must be a whole number from 1 to"),
        ({"num_attention_heads": True}, "num_attention_heads is True, and must be a whole number"),
        ({"vocab_size": 0}, "vocab_size is 0, and must be a whole number from 1"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, and must be a whole number from 1 to 10000"),
        ({"rms_norm_eps": math.nan}, "rms_norm_eps is nan, and must be a number above 0"),
        ({"rms_norm_eps": 0}, "rms_norm_eps is 0, and must be a number above 0"),
        ({"rope_theta": "x" * 100}, r"rope_theta is 'x+\.\.\., and must be a number above 0"),
        ({"hidden_act": ["silu"]}, r"hidden_act is \['silu'\], and must be a text"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings is 1, and must be true or false"),
        ({"architectures": "LlamaForCausalLM"}, "architectures is 'LlamaForCausalLM', and must be a list of texts"),
        ({"rope_scaling": [4]}, r"rope_scaling is \[4\], and must be a section of keys"),
        ({"rope_parameters": {"rope_theta": "x"}}, "rope_parameters: rope_theta is 'x', and must be a number above 0"),
        (
            {"rope_parameters": {"partial_rotary_factor": 1.5}},
            "partial_rotary_factor is 1.5, and must be a number from 0 to 1",
        ),
        ({"hidden_size": 2, "num_attention_heads": 4}, "its 2 channels are fewer than its 4 heads"),
        ({"model_type": ["llama"]}, r"the model_type of config.json is \['llama'\], and must be one text"),
        ({"architectures": ["LlamaModel"]}, "this is a LlamaModel; of llama models only LlamaForCausalLM or"),
    ],
)
def test_what_is_wrong_is_said(changes: Mapping[str, Any], sentence: str) -> None:
    config = {**LLAMA, **changes}
    with pytest.raises(CheckpointError, match=sentence):
        family_of(config).architecture(config)


def test_all_wrong_values_are_named_at_once_and_null_is_as_missing() -> None:
    config = {"hidden_size": "x", "vocab_size": -1, "head_dim": None, "bias": "unread"}
    assert len(list(wrong_values(config, frozenset({"hidden_size", "vocab_size", "head_dim"})))) == 2


def test_sizes_may_be_the_largest_there_are() -> None:
    assert not list(wrong_values({"vocab_size": 10**8, "num_hidden_layers": 10**4}, frozenset(KINDS)))
