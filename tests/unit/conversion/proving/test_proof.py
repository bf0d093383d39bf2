"""The proof: equal for models that are, and one sentence with the first layer that differs for each planted mistake."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from megatron.conversion.converting.to_hugging_face import to_hugging_face
from megatron.conversion.opening import OpenedModel, open_model
from megatron.conversion.proving import comparison as proof_comparison
from megatron.conversion.proving import proof as proof_module
from megatron.conversion.proving.proof import Proof, prove
from megatron.conversion.proving.theirs import TheirModel
from megatron.errors import MissingRequirement
from tests.unit.conversion.in_memory import MemorySource, opened

Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[OpenedModel, Path]]:
    """Models and their exports, by variant."""
    directory = tmp_path_factory.mktemp("exported")
    models = {variant: opened(variant) for variant in ("llama", "pythia")}
    for variant, model in models.items():
        assert to_hugging_face(model, directory / variant).equal
    return {variant: (model, directory / variant) for variant, model in models.items()}


def changed(exported: Path, directory: Path, change: Callable[[Tensors], None]) -> Path:
    """A copy of an export with other weights."""
    shutil.copytree(exported, directory)
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def configured(exported: Path, directory: Path, **keys: object) -> Path:
    """A copy of an export with other settings."""
    shutil.copytree(exported, directory)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, **keys}))
    return directory


def problem(proof: Proof) -> str:
    assert not proof.equal
    return proof.problem


def test_a_class_that_files_call_by_an_older_name(tmp_path: Path) -> None:
    model = opened("mpt")
    assert to_hugging_face(model, tmp_path / "mpt").equal
    older = configured(tmp_path / "mpt", tmp_path / "older", architectures=["MPTForCausalLM"])
    assert prove(model, older).equal
    assert open_model(str(older)).architecture == model.architecture


def test_gate_and_up_exchanged(exported: dict[str, tuple[OpenedModel, Path]], tmp_path: Path) -> None:
    model, directory = exported["llama"]

    def exchange(tensors: Tensors) -> None:
        gate, up = (f"model.layers.1.mlp.{part}_proj.weight" for part in ("gate", "up"))
        tensors[gate], tensors[up] = tensors[up], tensors[gate]

    said = problem(prove(model, changed(directory, tmp_path / "x", exchange)))
    assert said.startswith("LlamaForCausalLM computes something else than ours: outputs differ by up to ")
    assert said.endswith("the first layer that differs is block 1, or the final norm")


def test_a_bias_of_zero(exported: dict[str, tuple[OpenedModel, Path]], tmp_path: Path) -> None:
    model, directory = exported["pythia"]

    def zero(tensors: Tensors) -> None:
        tensors["gpt_neox.layers.0.attention.dense.bias"].zero_()

    assert problem(prove(model, changed(directory, tmp_path / "x", zero))).endswith("is block 0")


def test_two_rows_of_the_vocabulary_exchanged(exported: dict[str, tuple[OpenedModel, Path]], tmp_path: Path) -> None:
    model, directory = exported["pythia"]

    def exchange(name: str) -> Callable[[Tensors], None]:
        def change(tensors: Tensors) -> None:
            tensors[name] = tensors[name][[1, 0, *range(2, 59)]]

        return change

    head = changed(directory, tmp_path / "head", exchange("embed_out.weight"))
    assert problem(prove(model, head)).endswith("is the output layer")
    embedding = changed(directory, tmp_path / "embedding", exchange("gpt_neox.embed_in.weight"))
    assert problem(prove(model, embedding)).endswith("is the embedding")


@pytest.mark.parametrize(
    "keys",
    [{"hidden_act": "gelu"}, {"layer_norm_eps": 1e-3}, {"rotary_pct": 0.5}, {"use_parallel_residual": False}],
    ids=str,
)
def test_another_setting(
    exported: dict[str, tuple[OpenedModel, Path]], tmp_path: Path, keys: dict[str, object]
) -> None:
    model, directory = exported["pythia"]
    assert problem(prove(model, configured(directory, tmp_path / "x", **keys))).endswith("is block 0")


def test_a_window_that_only_one_of_them_has(tmp_path: Path) -> None:
    windowed = opened("llama", max_position_embeddings=32, sliding_window_width=20)
    whole = opened("llama", max_position_embeddings=32)
    assert to_hugging_face(whole, tmp_path / "x").equal
    said = problem(prove(replace(windowed, source=whole.source), tmp_path / "x"))
    assert "(29 random ids)" in said or "continued" in said


def test_a_tensor_that_transformers_misses(exported: dict[str, tuple[OpenedModel, Path]], tmp_path: Path) -> None:
    model, directory = exported["pythia"]
    lacking = changed(directory, tmp_path / "x", lambda tensors: tensors.pop("gpt_neox.final_layer_norm.bias"))  # type: ignore[arg-type, return-value]
    assert "loads it with missing keys ['gpt_neox.final_layer_norm.bias']" in problem(prove(model, lacking))


def test_a_class_that_transformers_does_not_have(exported: dict[str, tuple[OpenedModel, Path]], tmp_path: Path) -> None:
    model, directory = exported["pythia"]
    unknown = configured(directory, tmp_path / "x", architectures=["NoSuchForCausalLM"])
    assert problem(prove(model, unknown)).endswith("has no NoSuchForCausalLM")


def test_what_transformers_cannot_compute(exported: dict[str, tuple[OpenedModel, Path]], tmp_path: Path) -> None:
    model, directory = exported["pythia"]
    said = problem(prove(model, configured(directory, tmp_path / "x", rotary_pct=1.5)))
    assert "cannot compute it: The size of tensor" in said
    said = problem(prove(model, configured(directory, tmp_path / "y", num_attention_heads=3)))
    assert "cannot load it: Class validation error" in said
    assert "not divisible by the number of attention heads" in said


def test_what_is_not_a_number_is_not_equal(exported: dict[str, tuple[OpenedModel, Path]], tmp_path: Path) -> None:
    model, directory = exported["pythia"]

    def spoil(tensors: Tensors) -> None:
        tensors["gpt_neox.layers.1.mlp.dense_4h_to_h.bias"][0] = float("nan")

    assert "differ by up to nan" in problem(prove(model, changed(directory, tmp_path / "x", spoil)))
    spoilt = dict(model.source.tensors)  # type: ignore[attr-defined]
    spoilt["2.mlp.linear1.bias/weight"] = torch.full_like(spoilt["2.mlp.linear1.bias/weight"], float("inf"))
    diverged = replace(model, source=MemorySource(spoilt))
    assert problem(prove(diverged, directory)).startswith("outputs of ours are infinite or no numbers, so that ")


def test_what_fp32_loses_is_no_difference_and_hides_none(
    exported: dict[str, tuple[OpenedModel, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proof_comparison, "RELATIVE_TOLERANCE", 1e-9)  # as if the model magnified errors
    monkeypatch.setattr(proof_module, "FAR", 10**6)
    model, directory = exported["pythia"]
    proof = prove(model, directory)
    assert proof.equal
    assert any("fp64 instead of fp32 changes our own outputs by " in remark for remark in proof.remarks)
    assert max(prompt.tolerance for prompt in proof.prompts) < 1e-5
    rounded = to_hugging_face(model, tmp_path / "rounded", precision="bf16").proof
    assert rounded.equal
    assert max(prompt.tolerance for prompt in rounded.prompts) < 1e-5  # what rounding changes is not allowed
    assert not prove(model, configured(directory, tmp_path / "x", layer_norm_eps=1.02e-5)).equal


def test_a_row_of_huge_outputs_hides_no_difference_of_the_others(tmp_path: Path) -> None:
    model = opened("llama")
    head = next(name for name in model.source.shapes if "final_linear" in name)
    tensors = dict(model.source.tensors)  # type: ignore[attr-defined]
    tensors[head] = tensors[head].clone()
    tensors[head][7] *= 1e5
    model = replace(model, source=MemorySource(tensors))
    conversion = to_hugging_face(model, tmp_path / "x")
    assert conversion.equal, conversion.proof.problem
    assert max(prompt.tolerance for prompt in conversion.proof.prompts) < 1e-3

    def change(tensors: Tensors) -> None:
        tensors["lm_head.weight"][3] *= 1.02

    assert problem(prove(model, changed(tmp_path / "x", tmp_path / "y", change))).endswith("is the output layer")


def test_tokens_that_ours_would_not_append(
    exported: dict[str, tuple[OpenedModel, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    append = TheirModel.continuation

    def forgetful(theirs: TheirModel, tokens: Tensor, count: int) -> list[int]:
        found = append(theirs, tokens, count)
        return [(token + 1) % 59 if number == 1 else token for number, token in enumerate(found)]

    monkeypatch.setattr(TheirModel, "continuation", forgetful)
    said = problem(prove(*exported["llama"]))
    assert said.startswith("LlamaForCausalLM appends another token than ours (random ids, continued, token 2), though ")


def test_a_token_for_padding_is_scored_like_any_other(tmp_path: Path) -> None:
    model = opened("llama", train_impl="rm")
    assert to_hugging_face(model, tmp_path / "x").equal
    assert prove(model, configured(tmp_path / "x", tmp_path / "y", pad_token_id=58)).equal


def test_outputs_that_hardly_vary_prove_little(tmp_path: Path) -> None:
    model = opened("llama")
    still = {name: tensor * 1e-4 if name.startswith("6.") else tensor for name, tensor in model.source.tensors.items()}
    conversion = to_hugging_face(replace(model, source=MemorySource(still)), tmp_path / "x")
    assert conversion.equal
    assert any("hardly vary" in remark for remark in conversion.all_remarks)


def test_rounding_is_measured_and_not_a_difference(tmp_path: Path) -> None:
    model = opened("pythia")
    proof = to_hugging_face(model, tmp_path / "x", precision="bf16").proof
    assert proof.equal
    assert proof.rounding is not None
    assert proof.rounding > 100 * max(prompt.difference for prompt in proof.prompts)
    assert not prove(model, tmp_path / "x", dtype=torch.float32).equal


def test_without_transformers_it_says_what_to_install(
    exported: dict[str, tuple[OpenedModel, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, directory = exported["llama"]
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingRequirement, match=r"pip install -r requirements/requirements-transformers\.txt"):
        prove(model, directory)
    with pytest.raises(MissingRequirement):
        to_hugging_face(model, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
