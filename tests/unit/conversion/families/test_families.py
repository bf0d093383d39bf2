"""Every family against transformers: logits, names, weights to the bit, configurations there and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron.conversion.families.common import GELUS
from megatron.conversion.mapping.architecture import Architecture, architecture_of, config_keys
from megatron.conversion.mapping.choose import family_for, family_of
from megatron.conversion.mapping.harmless import HARMLESS
from megatron.conversion.mapping.shapes import model_args
from megatron.neox_arguments import NeoXArgs
from tests.hugging_face_configurations import MODELS
from tests.hugging_face_models import config_of, logits_of, random_tokens, write_model
from tests.unit.conversion.families.translated import TOLERANCE, family_of_model, our_logits, ours_of, tensors_of


@pytest.fixture(scope="module", params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def directory(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(name, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def architecture(name: str, directory: Path) -> Architecture:
    return family_of_model(name).architecture(config_of(directory))


def test_logits_are_those_of_transformers(name: str, directory: Path, architecture: Architecture) -> None:
    tokens = random_tokens(name)
    weights = ours_of(family_of_model(name), architecture, tensors_of(directory))
    theirs = logits_of(directory, tokens)
    assert theirs.abs().max() > 0.1
    torch.testing.assert_close(our_logits(architecture, weights, tokens), theirs, rtol=0, atol=TOLERANCE)


def test_weights_come_back_to_the_bit_under_the_names_of_the_file(
    name: str, directory: Path, architecture: Architecture
) -> None:
    family, tensors = family_of_model(name), tensors_of(directory)
    ours = ours_of(family, architecture, tensors)
    back: dict[str, torch.Tensor] = {}
    for rule in family.rules(architecture):
        assert ours[rule.ours].shape == rule.shape
        unpacked = rule.packing.unpack(ours[rule.ours])
        assert rule.their_shapes == {
            theirs: tuple(tensor.shape) for theirs, tensor in zip(rule.theirs, unpacked, strict=True)
        }
        back |= dict(zip(rule.theirs, unpacked, strict=True))
    assert set(back) == set(tensors)
    assert all(torch.equal(back[theirs], tensors[theirs]) for theirs in tensors)


def test_both_forms_of_a_configuration_mean_the_same(name: str, architecture: Architecture) -> None:
    published = {"architectures": [MODELS[name].architecture], **MODELS[name].config}
    assert family_of(published) is family_of_model(name)
    assert family_of_model(name).architecture(published) == architecture


def test_transformers_reads_our_configuration_as_its_own(
    name: str, directory: Path, architecture: Architecture, tmp_path: Path
) -> None:
    from transformers import AutoConfig

    ours = family_of_model(name).config(architecture)
    (tmp_path / "config.json").write_text(json.dumps(ours), encoding="utf-8")
    theirs, back = (_meaning(AutoConfig.from_pretrained(place).to_dict()) for place in (directory, tmp_path))
    assert back == theirs
    assert family_of_model(name).architecture(ours) == architecture


def test_our_keys_ask_for_the_architecture(architecture: Architecture) -> None:
    rows = architecture.vocab_size
    assert architecture_of(model_args(architecture), vocab_size=rows) == architecture
    if architecture.train_impl == "normal":  # other objectives cannot be trained yet
        keys = {**config_keys(architecture), "seq_length": 16, "train_iters": 1, "train_micro_batch_size_per_gpu": 1}
        assert architecture_of(NeoXArgs.from_dict(keys), vocab_size=rows) == architecture


def test_some_family_is_chosen_that_can_express_it(architecture: Architecture) -> None:
    family = family_for(architecture)
    assert family.architecture(family.config(architecture)) == architecture
    assert family.rules(architecture)


def _meaning(config: dict[str, Any]) -> dict[str, Any]:
    """A complete configuration of transformers without what says nothing, and with one form for what says the same."""
    is_reward_model = config["architectures"][0].endswith("SequenceClassification")
    kept = {key: value for key, value in config.items() if key not in HARMLESS}
    for key in ("hidden_act", "activation_function"):
        if kept.get(key) in GELUS:
            kept[key] = GELUS[kept[key]]["activation"]
    width = config.get("hidden_size") or config.get("d_model") or config["n_embd"]
    if "n_inner" in kept:
        kept["n_inner"] = kept["n_inner"] or 4 * width
    kept["head_dim"] = kept.get("head_dim") or width // next(
        config[key] for key in ("num_attention_heads", "n_heads", "n_head") if config.get(key)
    )
    if kept.get("rope_parameters"):
        # What stands beside these parameters was moved into them.
        kept.pop("partial_rotary_factor", None)
        unread = {"type", "finetuned"}
        kept["rope_parameters"] = {key: value for key, value in kept["rope_parameters"].items() if key not in unread}
    if not kept.get("use_sliding_window"):
        kept.pop("max_window_layers", None)
    if is_reward_model:
        kept.pop("tie_word_embeddings")  # there is no output layer
    return kept
