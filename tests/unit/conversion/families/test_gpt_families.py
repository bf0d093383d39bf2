"""What is special in GPT-2 and the families that came from it: what they cannot say, and how their files were written over the years."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from megatron.components import FAMILIES
from megatron.conversion.mapping.architecture import Architecture
from megatron.conversion.mapping.family import Family, Inexpressible
from megatron.conversion.reading.hugging_face import HuggingFaceSource
from megatron.errors import CheckpointError
from tests.hugging_face_models import MODELS, write_model
from tests.unit.conversion.families.translated import family_of_model, tensors_of


def config_like(name: str, **changes: Any) -> dict[str, Any]:
    return {"architectures": [MODELS[name].architecture], **MODELS[name].config, **changes}


def architecture_like(name: str, **changes: Any) -> Architecture:
    return replace(family_of_model(name).architecture(config_like(name)), **changes)


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True, and only False"),
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights is False, and only True"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention is True, and only False"),
        ("gpt2", {"activation_function": "quick_gelu"}, "activation_function is 'quick_gelu', and only 'gelu',"),
        ("gpt2", {"architectures": ["GPT2DoubleHeadsModel"]}, "only GPT2LMHeadModel or GPT2ForSequenceClassification"),
        ("gpt2", {"is_causal": False}, "is_causal is False"),
        ("gpt2-reward", {"num_labels": 3}, "has 3 labels; only reward models, with 1"),
        ("opt", {"do_layer_norm_before": False}, "do_layer_norm_before is False, and only True"),
        ("opt", {"word_embed_proj_dim": 16}, "word_embed_proj_dim is 16, and embeddings are as wide as the model"),
        ("opt", {"_remove_final_layer_norm": True}, "_remove_final_layer_norm is True, and only False"),
        ("gptj", {"rotary_dim": None}, "rotary_dim is None, and heads have 8 channels"),
        ("gptj", {"rotary_dim": 10}, "rotary_dim is 10, and heads have 8 channels"),
        ("gptj", {"rotary_dim": 3}, "rotary_dim is 3, and heads have 8 channels, of which an even number can turn"),
        ("gptj", {"n_embd": 392, "rotary_dim": 2}, "no rotary_pct gives exactly that of 98 channels"),
        ("gptj", {"tie_word_embeddings": True}, "tie_word_embeddings is True, and only False"),
        ("codegen", {"n_head": 2}, "it has 2 attention heads, and these models are in 4 parts"),
        ("phi-2", {"tie_word_embeddings": True}, "tie_word_embeddings is True, and only False"),
        ("phi-groups", {"head_dim": 16}, "normalises queries and keys 20 channels wide .*, and its heads have 16"),
        ("pythia", {"rope_theta": 5000.0}, "rope_theta is 5000.0, and .* is 10000"),
        ("falcon-7b", {"alibi": True}, "alibi is True: .* and here only scores are divided"),
        ("falcon-7b", {"num_ln_in_parallel_attn": 2}, "num_ln_in_parallel_attn is 2, which new_decoder_architecture"),
        ("falcon-heads", {"num_kv_heads": 2}, "num_kv_heads is 2, which new_decoder_architecture alone can have"),
        ("mpt", {"attn_config": {"clip_qkv": 6}}, "attn_config: clip_qkv is 6, and only None"),
        ("mpt", {"attn_config": {"alibi_bias_max": 16}}, "attn_config: alibi_bias_max is 16, and only 8"),
        ("mpt", {"attn_config": {"alibi": False}}, "attn_config: alibi is False, and only True"),
        ("mpt", {"attn_config": {"alibi": 1}}, "attn_config: alibi is 1, and must be true or false"),
        (
            "mpt",
            {"attn_config": {"sliding_window_size": 5}},
            "attn_config: sliding_window_size is 5, a setting that is not",
        ),
        ("mpt", {"logit_scale": "inv_sqrt_d_model"}, "logit_scale is 'inv_sqrt_d_model', a setting that is not known"),
        ("mpt", {"norm_type": "rmsnorm"}, "norm_type is 'rmsnorm', and only 'low_precision_layernorm', 'layernorm'"),
        ("mpt", {"expansion_ratio": 3}, "expansion_ratio is 3, and only 4"),
        ("falcon-40b", {"parallel_attn": False}, "parallel_attn False with 2 norms is no form of"),
        ("falcon-40b", {"num_ln_in_parallel_attn": 3}, "parallel_attn True with 3 norms is no form of"),
    ],
)
def test_what_ours_cannot_say_is_refused(name: str, changes: Mapping[str, Any], sentence: str) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        family_of_model(name).architecture(config_like(name, **changes))


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("pythia", {"gpt_j_tied": True}, "gpt_j_tied True"),
        ("pythia", {"use_bias_in_mlp": False}, "use_bias_in_mlp False"),
        ("phi-groups", {"head_dim": 16}, "normalises queries and keys 20 channels wide .*, and its heads have 16"),
        ("pythia", {"pos_emb": "learned"}, "no pos_emb 'learned', only 'rotary'"),
        ("gpt2", {"num_kv_heads": 2}, r"num_kv_heads 2 \(it has 4\)"),
        ("gpt2", {"activation": "swiglu"}, "no activation 'swiglu', only"),
        ("gptj", {"rotary_emb_base": 500000}, "rotary_emb_base 500000"),
        ("gptj", {"pos_emb": "none"}, "no pos_emb 'none', only 'rotary'"),
        ("gptj", {"use_bias_in_output_layer": False}, "use_bias_in_output_layer False"),
        ("codegen", {"num_attention_heads": 6, "num_kv_heads": 6}, "it has 6 attention heads"),
        ("codegen", {"train_impl": "rm"}, "CodeGenForCausalLM has no form with a reward head"),
        ("opt", {"opt_pos_emb_offset": 0}, "opt_pos_emb_offset 0"),
        ("opt", {"norm": "rmsnorm"}, "no norm 'rmsnorm'"),
        ("opt", {"use_bias_in_mlp": False}, "use_bias_in_mlp False"),
        ("starcoder", {"num_kv_heads": 2}, "num_kv_heads is 2, and it has 1 or as many as query heads"),
        ("falcon-sequential", {"num_kv_heads": 2}, "num_kv_heads 2 without gpt_j_residual"),
        ("falcon-7b", {"pos_emb": "alibi"}, "no pos_emb 'alibi', only 'rotary'"),
        ("mpt", {"pos_emb": "rotary"}, r"pos_emb 'rotary' \(it has 'alibi'\)"),
        ("mpt", {"mlp_width": 96}, r"mlp_width 96 \(it has 128\)"),
        ("mpt", {"use_bias_in_norms": True}, r"use_bias_in_norms True \(it has False\)"),
        ("mpt", {"use_bias_in_mlp": True}, r"use_bias_in_mlp True"),
        ("falcon-7b", {"rotary_pct": 0.5}, "rotary_pct is 0.5, and all of each head turns"),
    ],
)
def test_what_theirs_cannot_say_is_refused(name: str, changes: Mapping[str, Any], sentence: str) -> None:
    with pytest.raises(Inexpressible, match=sentence):
        family_of_model(name).config(architecture_like(name, **changes))


@pytest.mark.parametrize("name", ["gptj", "codegen"])
def test_where_nothing_is_said_64_channels_turn(name: str) -> None:
    config = {key: value for key, value in config_like(name, n_embd=1024).items() if key != "rotary_dim"}
    architecture = family_of_model(name).architecture(config)
    assert architecture.rotary_pct * architecture.head_dim == 64


def test_rotary_positions_are_written_under_the_first_names_that_they_had() -> None:
    config = family_of_model("neox-linear").config(architecture_like("neox-linear"))
    assert {key: value for key, value in config.items() if "rot" in key or "rope" in key} == {
        "rotary_emb_base": 10000.0,
        "rotary_pct": 0.25,
        "rope_scaling": {"type": "linear", "factor": 4.0},
    }


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({}, {"new_decoder_architecture": False, "parallel_attn": True, "multi_query": True}),
        ({"num_kv_heads": 4}, {"new_decoder_architecture": False, "parallel_attn": True, "multi_query": False}),
        ({"num_kv_heads": 2}, {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 1, "num_kv_heads": 2}),
        ({"gpt_j_tied": False}, {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 2, "num_kv_heads": 1}),
        (
            {"gpt_j_residual": False, "gpt_j_tied": False},
            {"new_decoder_architecture": False, "parallel_attn": False, "multi_query": True},
        ),
    ],
)
def test_falcon_has_a_form_for_each_kind_of_block(changes: Mapping[str, Any], keys: Mapping[str, Any]) -> None:
    config = family_of_model("falcon-7b").config(architecture_like("falcon-7b", **changes))
    assert {key: config[key] for key in keys} == keys


@pytest.mark.parametrize("name", ["gpt2", "gptj", "starcoder", "falcon-7b"])
def test_files_of_the_bare_model_with_masks_are_read(name: str, tmp_path: Path) -> None:
    """As GPT-2 is published: without the prefix of the class that has an output layer, and with the causal masks."""
    family: Family = family_of_model(name)
    written = HuggingFaceSource(write_model(name, tmp_path))
    before = {parameter: written.read(parameter).clone() for parameter in written.shapes}
    tensors = {theirs.removeprefix(family.prefix): tensor.clone() for theirs, tensor in tensors_of(tmp_path).items()}
    if name != "falcon-7b":
        tensors["h.0.attn.bias"] = torch.ones(1, 1, 32, 32)
        tensors["h.0.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(tensors, tmp_path / "model.safetensors")
    source = HuggingFaceSource(tmp_path)
    assert dict(source.shapes) == dict(written.shapes)
    assert all(torch.equal(source.read(parameter), tensor) for parameter, tensor in before.items())


@pytest.mark.parametrize(
    ("family", "buffer"),
    [
        ("neox", "gpt_neox.layers.11.attention.bias"),
        ("neox", "gpt_neox.layers.11.attention.masked_bias"),
        ("neox", "gpt_neox.layers.11.attention.rotary_emb.inv_freq"),
        ("gpt2", "transformer.h.11.attn.masked_bias"),
        ("codegen", "transformer.h.19.attn.causal_mask"),
        ("opt", "model.decoder.version"),
        ("phi", "model.layers.31.self_attn.rotary_emb.inv_freq"),
    ],
)
def test_buffers_of_old_files_are_known_and_weights_are_none(family: str, buffer: str) -> None:
    assert FAMILIES.load(family).is_buffer(buffer)
    for name in MODELS.values():
        if name.family == family:
            config = {"architectures": [name.architecture], **name.config}
            rules = FAMILIES.load(family).rules(FAMILIES.load(family).architecture(config))
            assert not any(FAMILIES.load(family).is_buffer(theirs) for rule in rules for theirs in rule.theirs)


@pytest.mark.parametrize("named", [None, []])
def test_where_no_class_is_named_it_is_a_language_model(named: list[str] | None) -> None:
    config = {**config_like("pythia"), "architectures": named}
    assert family_of_model("pythia").architecture(config) == architecture_like("pythia")
    assert architecture_like("pythia").train_impl == "normal"
