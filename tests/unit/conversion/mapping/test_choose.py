"""The family of a `config.json`, the family that a model is exported as, and what is said when there is none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from megatron.conversion.mapping.architecture import Architecture
from megatron.conversion.mapping.choose import families, family_for, family_of
from megatron.conversion.mapping.family import Inexpressible
from megatron.conversion.mapping.refused import REFUSED
from megatron.errors import CheckpointError, NeoXError
from tests.unit.conversion.mapping.small import SMALL

LLAMA = replace(SMALL, activation="swiglu", norm="rmsnorm")
BIASES: dict[str, Any] = {"use_bias_in_attn_linear": True, "use_bias_in_attn_output": True, "use_bias_in_mlp": True}
NEOX = replace(
    LLAMA, num_kv_heads=4, activation="gelu", norm="layernorm", rotary_pct=0.25, gpt_j_residual=True, **BIASES
)


@pytest.mark.parametrize(
    ("architecture", "changes", "expected"),
    [
        (LLAMA, {}, "llama"),
        (LLAMA, {"no_weight_tying": False, "rotary_emb_base": 500000}, "llama"),
        (LLAMA, {"sliding_window_width": 8}, "mistral"),
        (LLAMA, {"use_bias_in_attn_linear": True}, "qwen2"),
        (LLAMA, {"use_bias_in_attn_linear": True, "sliding_window_width": 8}, "qwen2"),
        (LLAMA, {"use_qk_layernorm": True}, "qwen3"),
        (LLAMA, {"use_qk_layernorm": True, "qk_layernorm_scope": "all_heads", "norm_position": "post"}, "olmo2"),
        (LLAMA, {"rotary_pct": 0.5}, "phi3"),
        (LLAMA, {"norm": "layernorm", "rotary_pct": 0.5}, "stablelm"),
        (LLAMA, {"norm": "non_parametric_layernorm"}, "olmo"),
        (LLAMA, {"use_bias_in_attn_linear": True, "use_bias_in_mlp": True}, "seed_oss"),
        (NEOX, {}, "neox"),
        (NEOX, {"gpt_j_residual": False}, "neox"),
        (NEOX, {"gpt_j_tied": True, "use_bias_in_output_layer": True}, "phi"),
        (NEOX, {"gpt_j_residual": False, "num_kv_heads": 2, "rotary_pct": 1.0}, "starcoder2"),
        (NEOX, {"gpt_j_residual": False, "pos_emb": "learned", "rotary_pct": 1.0}, "gpt2"),
    ],
)
def test_a_model_is_exported_as_the_first_family_that_can_express_it(
    architecture: Architecture, changes: dict[str, Any], expected: str
) -> None:
    changed = replace(architecture, **changes)
    family = family_for(changed)
    assert family.name == expected
    assert family.architecture(family.config(changed)) == changed


def test_a_family_may_be_asked_for_by_name() -> None:
    assert family_for(LLAMA, "mistral").name == "mistral"
    with pytest.raises(CheckpointError, match=r"MistralForCausalLM cannot express.*use_bias_in_mlp True"):
        family_for(replace(LLAMA, use_bias_in_mlp=True), "mistral")
    with pytest.raises(NeoXError, match=r'"lama" does not exist.*did you mean "llama"'):
        family_for(LLAMA, "lama")


def test_when_no_family_will_do_the_nearest_say_what_they_lack() -> None:
    with pytest.raises(CheckpointError) as raised:
        family_for(replace(LLAMA, norm="scalenorm"))
    first, *nearest = str(raised.value).splitlines()
    assert first == "no family of models in Hugging Face transformers can express this model. The nearest:"
    assert nearest[0] == "  llama: norm 'scalenorm' (it has 'rmsnorm')"
    assert len(nearest) == 3


def test_all_that_a_family_lacks_is_listed() -> None:
    llama = next(family for family in families() if family.name == "llama")
    with pytest.raises(Inexpressible) as raised:
        llama.config(replace(LLAMA, norm="layernorm", rotary_pct=0.5, activation="gelu"))
    problems = " ".join(raised.value.problems)
    assert len(raised.value.problems) == 3
    assert all(name in problems for name in ("norm 'layernorm'", "rotary_pct is 0.5", "activation 'gelu'"))


def test_every_family_is_found_by_its_type() -> None:
    assert all(family_of({"model_type": family.model_type}) is family for family in families())


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"num_labels": 3}, "has 3 labels; only reward models, with 1"),
        ({}, "has 2 labels"),
        ({"architectures": ["LlamaForTokenClassification"]}, "is a LlamaForTokenClassification; of llama models only"),
    ],
)
def test_only_language_and_reward_models_are_read(config: dict[str, Any], reason: str) -> None:
    llama = family_for(LLAMA)
    classifier = {**llama.config(LLAMA), "architectures": ["LlamaForSequenceClassification"]}
    assert llama.architecture({**classifier, "num_labels": 1}).train_impl == "rm"
    with pytest.raises(CheckpointError, match=reason):
        llama.architecture({**classifier, **config})


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({}, 'has no "model_type"'),
        (
            {"model_type": "lama"},
            r'"lama" of config.json is unknown; known are gpt_neox, llama, .*did you mean "llama"',
        ),
        ({"model_type": "mixtral"}, "type mixtral cannot be expressed: its MLPs are mixtures of experts"),
        ({"model_type": "gemma2"}, r"1 \+ weight .* caps scores and logits softly"),
        ({"model_type": "mamba"}, "state-space"),
        ({"model_type": "bloom"}, "normalises its embeddings"),
    ],
)
def test_a_model_that_cannot_be_read_is_refused_with_the_reason(config: dict[str, Any], reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        family_of(config)


def test_refused_types_exist_in_transformers_and_have_no_family() -> None:
    from transformers import CONFIG_MAPPING

    assert not {family.model_type for family in families()} & set(REFUSED)
    # MiniCPM is a program of its own repository.
    assert set(REFUSED) - set(CONFIG_MAPPING.keys()) <= {"minicpm"}
