"""Each key of a configuration of transformers, changed or left out: what changes its numbers changes ours alike, or is refused.

So a key that a family's table overlooks, or that counts as harmless and is not, is found without anyone having thought of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from megatron.conversion.mapping.architecture import Architecture
from megatron.errors import CheckpointError
from tests.hugging_face_configurations import MODELS
from tests.hugging_face_models import build_model, compute, config_of, random_tokens
from tests.unit.conversion.families.translated import TOLERANCE, family_of_model, our_logits, ours_of, tensors_of

# Changing these says nothing new: sizes show in the shapes of tensors, and the rest are names.
LEFT_ALONE = {
    *(
        "model_type",
        "architectures",
        "transformers_version",
        "vocab_size",
        "n_vocab",
        "num_labels",
        "id2label",
        "label2id",
    ),
    *("hidden_size", "n_embd", "num_hidden_layers", "n_layer", "num_attention_heads", "n_head", "n_positions", "n_ctx"),
    "max_seq_len",
    *("max_position_embeddings", "dtype", "torch_dtype", "problem_type", "_name_or_path", "chunk_size_feed_forward"),
    *("is_encoder_decoder", "output_hidden_states", "output_attentions", "return_dict"),
}
SCALINGS = (
    {"rope_type": "linear", "factor": 3.0},
    {"type": "linear", "factor": 2.0},
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8, "attention_factor": 1.7},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8, "mscale": 0.4, "mscale_all_dim": 1.5},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8, "mscale": 0.4},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8, "beta_fast": 3, "beta_slow": 0.5},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8, "truncate": False},
    {"rope_type": "yarn", "factor": 4.0},
    {
        "rope_type": "llama3",
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8,
    },
    {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    {
        "rope_type": "longrope",
        "factor": 2.0,
        "short_factor": [1.5] * 4,
        "long_factor": [2.5] * 4,
        "original_max_position_embeddings": 8,
    },
)
VALUES: Mapping[str, tuple[Any, ...]] = {
    **dict.fromkeys(
        ("hidden_act", "activation_function"),
        (
            "relu",
            "gelu",
            "gelu_new",
            "gelu_fast",
            "gelu_pytorch_tanh",
            "quick_gelu",
            "relu2",
            "linear",
            "sigmoid",
            "mish",
        ),
    ),
    "rope_scaling": SCALINGS,
    "rope_parameters": (*SCALINGS, {"rope_type": "default", "rope_theta": 77.0, "partial_rotary_factor": 0.5}),
    "layer_types": (["sliding_attention", "full_attention"], ["sliding_attention"] * 2, ["full_attention"] * 2),
    "head_dim": (16,),
    "rope_theta": (77.0, 77.5),
    "partial_rotary_factor": (0.5, 1.0),
    "original_max_position_embeddings": (8,),
    "sliding_window": (3, None),
    "is_causal": (False,),
    "attn_config": tuple(
        {"alibi": True, "alibi_bias_max": 8, **changes}
        for changes in (
            {"alibi": False},
            {"alibi_bias_max": 4},
            {"attn_pdrop": 1},
            {"clip_qkv": 0.5},
            {"softmax_scale": 0.1},
            *({key: True} for key in ("prefix_lm", "qk_ln", "attn_uses_sequence_id")),
        )
    ),
    **dict.fromkeys(("attention_bias", "mlp_bias", "use_bias", "lm_head_bias", "qk_layernorm"), (True,)),
}
"""Values of keys for which no other value can be guessed; also those that a configuration does not list, as some models heed them."""


def first_of_each_family() -> dict[str, str]:
    names: dict[str, str] = {}
    for name, model in MODELS.items():
        names.setdefault(model.family, name)
    return names


NAMES = (*first_of_each_family().values(), "qwen2-window")


def other_values(key: str, value: Any) -> tuple[Any, ...]:
    if key in VALUES:
        return VALUES[key]
    if isinstance(value, bool):
        return (not value,)
    if isinstance(value, float):
        return (value * 1000 if "eps" in key else value / 2 + 0.1,)
    if isinstance(value, int):
        return (value * 2 or 1, 1)
    return (2, 0.5, True) if value is None else ()


def changes_of(name: str) -> Iterator[dict[str, Any]]:
    listed = build_model(name).config.to_dict()
    keys = {**dict.fromkeys(VALUES), **listed, **MODELS[name].config}
    for key, value in sorted(keys.items()):
        if key not in LEFT_ALONE:
            yield from ({key: other} for other in other_values(key, value) if other != value)


def published(name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    return {"architectures": [MODELS[name].architecture], **MODELS[name].config, **changes}


def understood(name: str, config: Mapping[str, Any]) -> Architecture | None:
    """What we make of a configuration; None: it is refused."""
    try:
        return family_of_model(name).architecture(config)
    except CheckpointError:
        return None


def computed(name: str, changes: Mapping[str, Any]) -> tuple[Any, Tensor] | None:
    """The changed model of transformers and its logits; None: transformers refuses the value, or breaks on it."""
    try:
        module = build_model(name, changes=changes)
        return module, compute(module, random_tokens(name, rows=1))
    except Exception:
        return None


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_key_is_expressed_or_refused(name: str, tmp_path: Path) -> None:
    family, tokens = family_of_model(name), random_tokens(name, rows=1)
    unchanged = understood(name, published(name, {}))
    before = compute(build_model(name), tokens)
    expressed = 0
    for number, changes in enumerate(changes_of(name)):
        architecture = understood(name, published(name, changes))
        if architecture is None or (found := computed(name, changes)) is None:
            continue
        module, theirs = found
        if architecture == unchanged:
            assert (theirs - before).abs().max() <= TOLERANCE, f"{changes} is dropped"
            continue
        directory = tmp_path / str(number)
        module.save_pretrained(directory)
        assert understood(name, config_of(directory)) == architecture, changes
        ours = our_logits(architecture, ours_of(family, architecture, tensors_of(directory)), tokens)
        assert (ours - theirs).abs().max() <= TOLERANCE, changes
        expressed += not torch.equal(theirs, before)
    assert expressed >= 5


@pytest.mark.parametrize("name", MODELS)
def test_a_missing_key_has_the_default_of_transformers(name: str) -> None:
    from transformers import AutoConfig

    for key in MODELS[name].config.keys() - {"model_type"}:
        config = {other: value for other, value in published(name, {}).items() if other != key}
        architecture = understood(name, config)
        if architecture is None:
            continue
        try:
            completed = AutoConfig.for_model(**deepcopy(config)).to_dict()
        except (ValueError, TypeError):  # the defaults do not go with the sizes of this model
            continue
        assert understood(name, completed) == architecture, key
