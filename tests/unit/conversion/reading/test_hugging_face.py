"""Directories of Hugging Face transformers read under our names: every form of the files, and everything that can be wrong with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from megatron.conversion.opening import open_model
from megatron.conversion.reading.hugging_face import HuggingFaceSource
from megatron.errors import CheckpointError

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 11,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 12,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 16,
}
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
QUERIES = "model.layers.1.self_attn.q_proj.weight"


def tensors() -> dict[str, Tensor]:
    """The weights of the model, under their names."""
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (11, 8), "model.norm.weight": (8,), HEAD: (11, 8)}
    for layer in range(2):
        prefix = f"model.layers.{layer}."
        shapes |= {f"{prefix}{norm}_layernorm.weight": (8,) for norm in ("input", "post_attention")}
        shapes |= {f"{prefix}self_attn.{part}_proj.weight": (8, 8) for part in "qo"}
        shapes |= {f"{prefix}self_attn.{part}_proj.weight": (4, 8) for part in "kv"}
        shapes |= {f"{prefix}mlp.{part}_proj.weight": (12, 8) for part in ("gate", "up")}
        shapes[f"{prefix}mlp.down_proj.weight"] = (8, 12)
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def write(directory: Path, weights: dict[str, Tensor], **config: Any) -> Path:
    """A directory with one file."""
    directory.mkdir(exist_ok=True)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text(json.dumps({**CONFIG, **config}))
    return directory


def write_in_two(directory: Path, suffix: str) -> Path:
    """The weights in two files with an index."""
    weights = tensors()
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    names = sorted(weights)
    parts = {f"{stem}-{number + 1:05d}-of-00002.{suffix}": names[number::2] for number in range(2)}
    write(directory, {})
    (directory / "model.safetensors").unlink()
    for file, inside in parts.items():
        part = {name: weights[name] for name in inside}
        if suffix == "safetensors":
            save_file(part, directory / file)
        else:
            torch.save(part, directory / file)
    index = {"metadata": {}, "weight_map": {name: file for file, inside in parts.items() for name in inside}}
    (directory / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))
    return directory


def check(directory: Path, *, dtype: torch.dtype = torch.float32) -> HuggingFaceSource:
    """Every tensor is the one of `tensors()`, in our order of rows."""
    source = HuggingFaceSource(directory)
    expected = {name: tensor.to(dtype) for name, tensor in tensors().items()}
    layer = "model.layers.1."
    query_key_value = torch.cat([expected[f"{layer}self_attn.{part}_proj.weight"] for part in "qkv"])
    up_and_gate = torch.cat([expected[f"{layer}mlp.{part}_proj.weight"] for part in ("up", "gate")])
    assert torch.equal(source.read("3.attention.query_key_value.weight/weight"), query_key_value)
    assert torch.equal(source.read("3.mlp.linear1.weight/weight"), up_and_gate)
    assert torch.equal(source.read("0.word_embeddings.weight/weight"), expected[EMBEDDING])
    assert {name: tuple(source.read(name).shape) for name in source.shapes} == source.shapes
    assert sum(torch.Size(shape).numel() for shape in source.shapes.values()) == sum(
        tensor.numel()
        for name, tensor in expected.items()
        if name != HEAD or "6.final_linear.weight/weight" in source.shapes
    )
    return source


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_several_files_with_an_index_are_read(tmp_path: Path, suffix: str) -> None:
    check(write_in_two(tmp_path, suffix))


@pytest.mark.parametrize("is_zip", [True, False])
def test_one_file_is_read_of_torch_before_1_6_as_well(tmp_path: Path, is_zip: bool) -> None:
    write(tmp_path, {})
    (tmp_path / "model.safetensors").unlink()
    torch.save(tensors(), tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=is_zip)
    check(tmp_path)


def test_tensors_are_given_as_they_are_stored(tmp_path: Path) -> None:
    directory = write(tmp_path, {name: tensor.bfloat16() for name, tensor in tensors().items()})
    assert check(directory, dtype=torch.bfloat16).read("5.norm.scale/weight").dtype == torch.bfloat16


def test_names_without_the_prefix_and_buffers_are_understood(tmp_path: Path) -> None:
    weights = {name.removeprefix("model."): tensor for name, tensor in tensors().items()}
    check(write(tmp_path, {**weights, "layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)}))


def test_a_tied_model_may_have_its_output_layer_a_second_time_but_no_other(tmp_path: Path) -> None:
    weights = tensors()
    copy = weights[EMBEDDING].clone()
    check(write(tmp_path, {**weights, HEAD: copy}, tie_word_embeddings=True))
    copy[3, 5] += 1e-3
    with pytest.raises(CheckpointError, match=r"lm_head.weight differs from model.embed_tokens.weight: .*tie_word"):
        HuggingFaceSource(write(tmp_path, {**weights, HEAD: copy}, tie_word_embeddings=True))


def without(name: str) -> dict[str, Tensor]:
    return {other: tensor for other, tensor in tensors().items() if other != name}


@pytest.mark.parametrize(
    ("weights", "config", "sentence"),
    [
        (
            {**without(QUERIES), "model.layers.1.self_attn.q_norm.weight": torch.ones(4)},
            {},
            rf"hold exactly the tensors of its config.json: 1 is missing \({QUERIES} \[8, 8\]\), "
            r"1 is not known there \(model.layers.1.self_attn.q_norm.weight \[4\]\)$",
        ),
        (
            {**tensors(), QUERIES: torch.ones(6, 8)},
            {},
            rf"1 has another shape \({QUERIES} is \[6, 8\] and by config.json",
        ),
        (
            {**tensors(), "embed_tokens.weight": torch.ones(11, 8)},
            {},
            r"1 is not known there \((model\.)?embed_tokens.weight",
        ),
        (without(HEAD), {}, "1 is missing .* it was saved without its output layer"),
        (
            {**tensors(), QUERIES: torch.ones(8, 8, dtype=torch.int8)},
            {},
            rf"other types than .*{QUERIES} \(i8\); weights that were quantized",
        ),
        (tensors(), {"quantization_config": {"quant_method": "gptq"}}, "is quantized .*method gptq"),
        (tensors(), {"model_type": "lamma"}, r'the model_type "lamma" of config.json is unknown.*did you mean "llama"'),
        (tensors(), {"hidden_act": "mish"}, "hidden_act is 'mish'"),
        (tensors(), {"num_labels_of_experts": 8}, "num_labels_of_experts is 8, a setting that is not known here"),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(
    tmp_path: Path, weights: dict[str, Tensor], config: dict[str, Any], sentence: str
) -> None:
    directory = write(tmp_path, weights, **config)
    with pytest.raises(CheckpointError, match=sentence) as error:
        HuggingFaceSource(directory)
    assert str(directory) in str(error.value)
    assert "\n" not in str(error.value)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def rename_in_index(path: Path) -> None:
    path.write_text(path.read_text().replace("q_proj", "p_proj"))


DAMAGES: list[tuple[str, Callable[[Path], None], str]] = [
    ("model-00002-of-00002.safetensors", Path.unlink, "names 2 files, of which 1 is missing: model-00002-of-00002"),
    ("model-00001-of-00002.safetensors", cut, "model-00001-of-00002.safetensors is damaged or incomplete"),
    ("model.safetensors.index.json", cut, "index.json is not readable JSON"),
    ("model.safetensors.index.json", rename_in_index, "do not belong together: .*p_proj"),
    ("model.safetensors.index.json", lambda path: path.write_text("{}"), 'has no "weight_map"'),  # type: ignore[list-item, misc]
    ("config.json", Path.unlink, "has no config.json"),
    ("config.json", lambda path: path.write_text("[]"), "config.json holds no JSON object"),  # type: ignore[list-item, misc]
    ("adapter_config.json", Path.touch, "is an adapter"),
]


@pytest.mark.parametrize(("file", "damage", "sentence"), DAMAGES)
def test_damaged_and_missing_files_are_named(
    tmp_path: Path, file: str, damage: Callable[[Path], None], sentence: str
) -> None:
    directory = write_in_two(tmp_path, "safetensors")
    damage(directory / file)
    with pytest.raises(CheckpointError, match=sentence):
        HuggingFaceSource(directory)


def test_a_directory_without_weights_says_what_it_holds(tmp_path: Path) -> None:
    (write(tmp_path, {}) / "model.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"holds no weights of Hugging Face transformers .* it contains config.json$"
    ):
        open_model(f"hf:{tmp_path}")


def test_a_model_is_opened_by_its_path_with_and_without_hf(tmp_path: Path) -> None:
    directory = write(tmp_path, tensors())
    for text in (str(directory), f"hf:{directory}", directory):
        opened = open_model(text)
        assert opened.directory == directory
        assert opened.architecture.num_kv_heads == 1
        assert "a LlamaForCausalLM of Hugging Face transformers" in opened.description
    with pytest.raises(
        CheckpointError, match=r"is one model, not a directory of checkpoints: leave out the iteration \(5\)"
    ):
        open_model(directory, iteration=5)


def test_a_file_is_not_kept_open(tmp_path: Path) -> None:
    directory = write(tmp_path, tensors())
    source = HuggingFaceSource(directory)
    changed = {name: tensor + 1 for name, tensor in load_file(directory / "model.safetensors").items()}
    save_file(changed, directory / "model.safetensors")
    assert torch.equal(source.read("0.word_embeddings.weight/weight"), changed[EMBEDDING])
