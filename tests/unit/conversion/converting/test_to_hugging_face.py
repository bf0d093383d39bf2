"""A model of ours written and proven: what every family expresses, what lies in the directory, and what is left when it fails."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from megatron.conversion.converting import to_hugging_face_parser
from megatron.conversion.converting.report_page import conversion_lines
from megatron.conversion.converting.to_hugging_face import to_hugging_face
from megatron.conversion.converting.to_hugging_face_command import run
from megatron.conversion.export import shards as export_shards
from megatron.conversion.export.place import REPORT
from megatron.conversion.export.shards import INDEX, ShardReader
from megatron.conversion.mapping.choose import family_for
from megatron.conversion.opening import open_model
from megatron.errors import CheckpointError, NeoXError
from tests.unit.checkpointing.inspecting.saved import save_run
from tests.unit.conversion.in_memory import MemorySource, opened, weights_of
from tests.unit.model.builders import DEFAULTS, VARIANTS, build_args
from tests.unit.tokenizer.small import gpt2_files


def expressible() -> Iterator[str]:
    """The variants that some family can express."""
    for variant in VARIANTS:
        try:
            family_for(opened(variant).architecture)
        except CheckpointError:
            continue
        yield variant


EXPRESSIBLE = list(expressible())


def test_the_well_known_variants_can_be_expressed() -> None:
    assert {"gpt2", "opt", "pythia", "gpt-j", "llama"} <= set(EXPRESSIBLE)


@pytest.mark.parametrize("variant", EXPRESSIBLE)
def test_every_variant_computes_the_same_there_and_comes_back(variant: str, tmp_path: Path) -> None:
    model = opened(variant)
    conversion = to_hugging_face(model, tmp_path / "model")
    assert conversion.proof.problem == ""
    assert conversion.equal
    back = open_model(tmp_path / "model")
    assert back.architecture == model.architecture
    for name, shape in model.source.shapes.items():
        assert back.source.shapes[name] == shape
        assert torch.equal(back.source.read(name), model.source.read(name))


def test_a_reward_model_gives_the_same_scores(tmp_path: Path) -> None:
    conversion = to_hugging_face(opened("llama", train_impl="rm"), tmp_path / "model")
    assert conversion.equal
    assert conversion.architecture == "LlamaForSequenceClassification"
    assert conversion.proof.spread > 0
    assert conversion.proof.remarks == ()


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", "float16"), ("bf16", "bfloat16"), ("auto", "float32")])
def test_the_directory_is_complete_and_its_report_true(tmp_path: Path, precision: str, dtype: str) -> None:
    settings = gpt2_files(tmp_path / "gpt2")
    tokenizer = {
        "tokenizer_type": settings.tokenizer_type,
        "vocab_file": settings.vocab_file,
        "merge_file": settings.merge_file,
    }
    model = opened("llama", rows=450, saved=True, max_position_embeddings=128, **tokenizer)
    directory = tmp_path / "model"
    conversion = to_hugging_face(model, directory, precision=precision, shard_bytes=30_000)
    report = json.loads((directory / REPORT).read_text())
    assert conversion.equal
    assert report["equal"]
    assert {"config.json", "generation_config.json", INDEX, "tokenizer.json", "tokenizer_config.json"} <= set(
        report["files"]
    )
    assert {path.name for path in directory.iterdir()} == {*report["files"], REPORT}
    for name, facts in report["files"].items():
        content = (directory / name).read_bytes()
        assert facts == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    config = json.loads((directory / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == dtype == report["dtype"]
    assert {ShardReader(directory)[name].dtype for name in ShardReader(directory)} == {getattr(torch, dtype)}
    assert (config["eos_token_id"], config["vocab_size"]) == (400, 450)
    assert report["source"]["parameters"] == sum(tensor.numel() for tensor in model.source.tensors.values())
    assert [prompt["continued"] for prompt in report["prompts"] if prompt["continued"]] == [32, 32]
    assert any(prompt["name"] == "64 random ids" and prompt["log_likelihoods"][0] < -64 for prompt in report["prompts"])
    assert ("by rounding the weights" in report["differences"]) == (dtype != "float32")


def test_transformers_itself_loads_and_generates_with_it(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    settings = gpt2_files(tmp_path / "gpt2")
    tokenizer = {
        "tokenizer_type": settings.tokenizer_type,
        "vocab_file": settings.vocab_file,
        "merge_file": settings.merge_file,
    }
    to_hugging_face(opened("gpt2", rows=401, saved=True, **tokenizer), tmp_path / "model", precision="bf16")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokens = AutoTokenizer.from_pretrained(tmp_path / "model")("def", return_tensors="pt")
    assert model.dtype == torch.bfloat16
    assert model.generate(**tokens, max_new_tokens=3).shape[1] > tokens["input_ids"].shape[1]


def test_what_computes_something_else_leaves_a_report_alone(tmp_path: Path) -> None:
    class Forgetful(MemorySource):
        """Gives other values when it is read a second time, for the proof."""

        def read(self, name: str) -> torch.Tensor:
            again = name in self.reads
            return super().read(name) * (1.5 if again and name.startswith("3.mlp") else 1.0)

    model = opened("pythia")
    directory = tmp_path / "model"
    conversion = to_hugging_face(replace(model, source=Forgetful(model.source.tensors)), directory)
    assert not conversion.equal
    assert [path.name for path in directory.iterdir()] == [REPORT]
    report = json.loads((directory / REPORT).read_text())
    assert report["equal"] is False
    assert report["files"] == {}
    assert report["problem"].endswith("the first layer that differs is block 1, or the final norm")
    page = "\n".join("".join(text for text, _ in line) for line in conversion_lines(conversion, directory))
    assert page.endswith(f"not converted: {report['problem']}")
    assert to_hugging_face(model, directory).equal  # the report is in nobody's way

    good = {path.name: path.read_bytes() for path in directory.iterdir()}
    again = to_hugging_face(replace(model, source=Forgetful(model.source.tensors)), directory, overwrite=True)
    assert not again.equal
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == good
    assert json.loads((tmp_path / f"model.{REPORT}").read_text())["equal"] is False
    *_, said = conversion_lines(again, directory)
    assert said[0][0] == f"{directory} stays as it was; the report of this conversion is {tmp_path}/model.{REPORT}"
    assert to_hugging_face(model, directory, overwrite=True).equal
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("at", range(1, 8))
def test_an_exception_at_any_tensor_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    write, calls = export_shards.write_values, 0

    def failing(*args: Any, **options: Any) -> str:
        nonlocal calls
        calls += 1
        if calls == 3 * at:
            raise KeyboardInterrupt
        return write(*args, **options)

    monkeypatch.setattr(export_shards, "write_values", failing)
    with pytest.raises(KeyboardInterrupt):
        to_hugging_face(opened("llama"), tmp_path / "model", shard_bytes=10_000)
    assert list(tmp_path.iterdir()) == []


def test_what_no_family_has_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match="no family of models in Hugging Face transformers can express this model"
    ):
        to_hugging_face(opened("scalenorm, gated with biases"), tmp_path / "model")
    with pytest.raises(CheckpointError, match="LlamaForCausalLM cannot express"):
        to_hugging_face(opened("pythia"), tmp_path / "model", wanted="llama")
    with pytest.raises(NeoXError, match="family of models"):
        to_hugging_face(opened("pythia"), tmp_path / "model", wanted="lama")
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_that_is_not_the_models_is_refused(tmp_path: Path) -> None:
    model = opened("llama", saved=True, tokenizer_type="CharLevelTokenizer")
    with pytest.raises(CheckpointError, match="512 entries, and the model 59 rows"):
        to_hugging_face(model, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_that_lies_elsewhere_is_a_remark(tmp_path: Path) -> None:
    model = opened("llama", saved=True, tokenizer_type="HFTokenizer", vocab_file="/nowhere/tokenizer.json")
    conversion = to_hugging_face(model, tmp_path / "model")
    assert conversion.equal
    (remark,) = conversion.all_remarks
    assert remark.startswith(
        "no tokenizer files were written, and no texts compared: /nowhere/tokenizer.json cannot be read"
    )
    assert json.loads((tmp_path / "model" / "config.json").read_text())["eos_token_id"] is None


def test_the_precision_of_the_training_is_that_of_the_files(tmp_path: Path) -> None:
    trained = opened("llama", saved=True, precision="bfloat16", vocab_file="none", tokenizer_type="HFTokenizer")
    assert to_hugging_face(trained, tmp_path / "trained").dtype == "bfloat16"
    halves = {name: tensor.half() for name, tensor in weights_of(VARIANTS["llama"]).items()}
    stored = replace(opened("llama"), source=MemorySource(halves))
    assert to_hugging_face(stored, tmp_path / "stored").dtype == "float16"


@pytest.mark.parametrize(("text", "wanted"), [("5GB", 5 * 10**9), ("1.5 MiB", 3 * 2**19), ("4096", 4096)])
def test_sizes_are_read(text: str, wanted: int) -> None:
    words = ["--input_dir", "a", "--output_dir", "b", "--max-shard-size", text]
    assert to_hugging_face_parser.parse_arguments(words).max_shard_size == wanted


@pytest.mark.parametrize("text", ["0", "five", "-1GB", "5 TBB"])
def test_what_is_no_size_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        to_hugging_face_parser.parse_arguments(["--input_dir", "a", "--output_dir", "b", f"--max-shard-size={text}"])
    assert "is no size such as 5GB or 500MB" in capsys.readouterr().err


def converted(*words: object) -> int:
    """The exit status of the command, what it prints being left away."""
    return run(to_hugging_face_parser.parse_arguments([str(word) for word in words]), lambda lines: None)


def test_a_configuration_stands_in_for_one_that_the_checkpoint_lacks(tmp_path: Path) -> None:
    settings = {**DEFAULTS, **VARIANTS["llama"]}
    checkpoint = save_run(tmp_path / "checkpoints", weights_of(settings), args=build_args(**settings))
    for name, keys in {"same": settings, "wider": {**settings, "intermediate_size": 300}}.items():
        (tmp_path / f"{name}.yml").write_text(yaml.safe_dump(keys))
    words = ("--input_dir", checkpoint, "--output_dir", tmp_path / "model", "--config_file")
    with pytest.raises(
        CheckpointError, match=r"mlp\.linear1\.weight of shape .*, and the settings ask for \[208, 32\]"
    ):
        converted(*words, tmp_path / "wider.yml")
    assert converted(*words, tmp_path / "same.yml") == 0
    assert json.loads((tmp_path / "model" / REPORT).read_text())["settings"]["intermediate_size"] == 144


def test_a_model_of_transformers_is_written_as_another_of_its_kind(tmp_path: Path) -> None:
    to_hugging_face(opened("llama"), tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**config, "bos_token_id": 3, "eos_token_id": [4, 5]}))
    for name in ("tokenizer.json", "merges.txt"):
        (tmp_path / "model" / name).write_text(name)
    assert converted("--input_dir", tmp_path / "model", "--output_dir", tmp_path / "again", "--precision", "bf16") == 0
    for name in ("tokenizer.json", "merges.txt"):
        assert (tmp_path / "again" / name).read_text() == name
    for name in ("config.json", "generation_config.json"):
        keys = json.loads((tmp_path / "again" / name).read_text())
        assert (keys["bos_token_id"], keys["eos_token_id"], keys["pad_token_id"]) == (3, [4, 5], None)
    with pytest.raises(
        CheckpointError, match=r"by itself how many rows its vocabulary has: leave out vocab-size \(7\)"
    ):
        converted("--input_dir", tmp_path / "model", "--output_dir", tmp_path / "x", "--vocab-size", "7")
