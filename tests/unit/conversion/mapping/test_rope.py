"""Rotary settings of `config.json`: both forms are read, keys that disagree are refused, and every type turns as in transformers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from megatron.conversion.mapping.architecture import Architecture
from megatron.conversion.mapping.rope import Rotary
from megatron.conversion.mapping.settings import Untranslatable
from megatron.model.positions.rotary import rotary_frequencies

HEAD, LENGTH = 64, 4096
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
MODEL = Architecture(
    num_layers=1,
    hidden_size=HEAD,
    num_attention_heads=1,
    num_kv_heads=1,
    head_dim=HEAD,
    mlp_width=8,
    vocab_size=59,
    max_position_embeddings=LENGTH,
)


def read(row: Rotary | None = None, **config: Any) -> dict[str, Any]:
    return (row or Rotary()).to_ours({"max_position_embeddings": LENGTH, **config})


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "linear", "factor": 3.0},
        {**LLAMA3, "original_max_position_embeddings": 512},
        LLAMA3,
        YARN,
        {"rope_type": "yarn", "factor": 4.0},
        {**YARN, "attention_factor": 1.3},
        {**YARN, "attention_factor": 1.0, "mscale": 0.5, "mscale_all_dim": 0.7},
        {**YARN, "mscale": 0.5, "mscale_all_dim": 0.7},
        {**YARN, "mscale": 0.5},
        {**YARN, "beta_fast": 16, "beta_slow": 2, "truncate": True},
        {**YARN, "factor": 1.0},
    ],
)
@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_frequencies_and_magnitudes_are_those_of_transformers(scaling: dict[str, Any], key: str) -> None:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    form: dict[str, Any] = {"rope_theta": 500000.0, key: dict(scaling)}
    sizes: dict[str, Any] = {
        "head_dim": HEAD,
        "hidden_size": HEAD,
        "num_attention_heads": 1,
        "max_position_embeddings": LENGTH,
    }
    ours = read(**form)
    theirs = LlamaRotaryEmbedding(LlamaConfig(**sizes, **form))
    frequencies, magnitude = rotary_frequencies(HEAD, ours["rotary_emb_base"], tuple(ours["rope_scaling"].items()))
    torch.testing.assert_close(frequencies, theirs.inv_freq, rtol=1e-6, atol=0)
    assert magnitude == pytest.approx(theirs.attention_scaling, rel=1e-12)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, (10000, 0.25)),
        ({"rotary_emb_base": 500, "rotary_pct": 0.5}, (500, 0.5)),
        ({"rope_parameters": {"rope_theta": 500.0, "partial_rotary_factor": 0.5, "rope_type": "default"}}, (500, 0.5)),
        ({"rotary_emb_base": 500, "rope_theta": 500, "rotary_pct": 0.5, "partial_rotary_factor": 0.5}, (500, 0.5)),
        ({"rope_scaling": {"type": "linear", "factor": 2}, "rotary_emb_base": 500}, (500, 0.25)),
    ],
)
def test_base_and_fraction_are_found_wherever_they_stand(config: dict[str, Any], expected: tuple[int, float]) -> None:
    row = Rotary(base="rotary_emb_base", fraction="rotary_pct", default_fraction=0.25)
    values = read(row, **config)
    assert (values["rotary_emb_base"], values["rotary_pct"]) == expected


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"rope_theta": 500.0, "rope_parameters": {"rope_theta": 600.0}}, "rope_theta is 500.0.* 600.0"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5, and all of each head turns|by another key"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "all of each head turns"),
        ({"rope_scaling": LLAMA3, "rope_parameters": YARN}, "rope_scaling and rope_parameters are not the same"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 5.0}}}, "differ between kinds of layers"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'dynamic' is not built here.*linear, llama3, yarn are"),
        ({"rope_scaling": {"type": "su", "factor": 2.0}}, "'su' is not built"),
        ({"rope_scaling": {**YARN, "truncate": False}}, "truncate false"),
        ({"rope_scaling": {**YARN, "low_freq_factor": 2}}, "has low_freq_factor, not built"),
        ({"rope_scaling": {"type": "linear"}}, "lacks factor"),
        ({"rope_scaling": {"rope_type": "yarn", "mscale": 0.5, "mscale_all_dim": 0.7}}, "lacks factor"),
        ({"rope_scaling": {"factor": 2.0}}, "has factor, and no type of scaling"),
        ({"rope_parameters": {"rope_type": "default", "mrope_section": [2, 2]}}, "has mrope_section, and no type"),
        ({"rope_scaling": {**YARN, "type": "linear"}}, "rope_type 'yarn' and the type 'linear'"),
        ({"rope_scaling": {"type": "linear", "factor": 0.5}}, "factor 0.5: it must be"),
        ({"rope_scaling": {**YARN, "beta_fast": 0}}, "beta_fast 0: it must be a number above 0"),
        ({"rope_scaling": {**LLAMA3, "low_freq_factor": 4.0}}, "low_freq_factor 4.0, which must be below"),
        (
            {"rope_scaling": YARN, "original_max_position_embeddings": 99},
            "original_max_position_embeddings is 99, and by another key of config.json it is 1024",
        ),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0}, "max_position_embeddings": None}, "lacks original_max_pos"),
    ],
)
def test_what_is_not_clear_or_not_built_is_refused(config: dict[str, Any], reason: str) -> None:
    with pytest.raises(Untranslatable, match=reason):
        read(**config)


def test_a_part_of_the_channels_that_is_null_is_refused_where_it_is_not_all_by_default() -> None:
    with pytest.raises(Untranslatable, match=r"rotary_pct is null, which transformers takes for 0\.25 or for 1"):
        read(Rotary(fraction="rotary_pct", default_fraction=0.25), rotary_pct=None)
    assert read(Rotary(fraction="partial_rotary_factor"), partial_rotary_factor=None)["rotary_pct"] == 1


def test_nothing_is_scaled_by_a_factor_of_one_or_by_keys_that_no_type_reads() -> None:
    scaling = {"type": "default", "factor": 1.0, "original_max_position_embeddings": 512, "low_freq_factor": None}
    assert read(rope_scaling=scaling)["rope_scaling"] is None


def test_what_is_written_is_read_again() -> None:
    row = Rotary(fraction="partial_rotary_factor")
    scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024, "attention_factor": 1.1}
    before = replace(MODEL, rotary_emb_base=500, rotary_pct=0.5, rope_scaling=scaling)
    written = row.to_theirs(before)
    values = read(row, **written)
    assert written["rope_scaling"]["rope_type"] == "yarn"
    assert {name: getattr(before, name) for name in values} == values


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pos_emb": "learned"}, "pos_emb 'learned'"),
        ({"rotary_pct": 0.5}, "rotary_pct is 0.5"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "type 'linear' is unknown there"),
    ],
)
def test_what_a_family_lacks_is_named(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(Untranslatable, match=reason):
        Rotary(scalings=()).to_theirs(replace(MODEL, **changes))
