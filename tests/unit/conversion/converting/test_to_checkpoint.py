"""tools/ckpts/convert_hf_to_neox.py: a checkpoint with a configuration and a proof, or nothing but the report of why not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from megatron.checkpointing.inspecting.lines import Line
from megatron.checkpointing.layout import find_checkpoint
from megatron.checkpointing.manifest import check_files
from megatron.conversion.agreement import check_agreement
from megatron.conversion.converting.to_checkpoint_command import run
from megatron.conversion.converting.to_checkpoint_parser import UNPROVEN, parse_arguments
from megatron.conversion.opening import open_model
from megatron.conversion.reading.hugging_face import HuggingFaceSource
from megatron.errors import CheckpointError
from megatron.neox_arguments import NeoXArgs
from megatron.tokenizer.build import build_tokenizer
from megatron.tokenizer.train import train_bpe
from tests.hugging_face_models import build_model
from tests.unit.conversion.test_loading import neox_run
from tests.unit.model.builders import VARIANTS
from tests.unit.tokenizer.small import TEXTS

RUN = {"seq_length": 8, "train_iters": 1, "train_micro_batch_size_per_gpu": 1, "precision": "fp32"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama in bf16 with a tokenizer, and three rows more than that has entries."""
    directory = tmp_path_factory.mktemp("models") / "llama"
    directory.mkdir()
    tokenizer = train_bpe(TEXTS, vocab_size=400)
    tokenizer.save(directory / "tokenizer.json")
    (directory / "chat_template.jinja").write_text("{{ messages }}")
    changes = {"vocab_size": tokenizer.vocab_size + 3}
    build_model("llama-2-70b", changes=changes).bfloat16().save_pretrained(directory)
    return directory


def convert(*words: object) -> tuple[int, str]:
    """The exit status and what is printed."""
    printed: list[str] = []

    def show(lines: Iterable[Line]) -> None:
        printed.extend("".join(text for text, _ in line) for line in lines)

    return run(parse_arguments(list(map(str, words))), show), "\n".join(printed)


def test_a_model_becomes_a_proven_checkpoint_with_its_configuration(model: Path, tmp_path: Path) -> None:
    output = tmp_path / "converted"
    status, printed = convert(model, "--output_dir", output)
    assert status == 0, printed
    assert printed.endswith("both compute the same, in fp32, with weights in float32")
    assert "a checkpoint of iteration 0" in printed
    check_files(find_checkpoint(output), "full")
    original, ours = open_model(model), open_model(output)
    assert ours.architecture == original.architecture
    for name in original.source.shapes:
        assert torch.equal(ours.source.read(name), original.source.read(name).float())
    assert ours.saved_args is not None
    assert ours.saved_args.precision == "bfloat16"

    text = (output / "config.yml").read_text()
    args = NeoXArgs.from_dict({**RUN, **yaml.safe_load(text), "load": str(output), "finetune": True})
    tokenizer = build_tokenizer(args)
    assert Path(args.vocab_file or "").parent == output / "tokenizer"
    assert (output / "tokenizer" / "chat_template.jinja").is_file()
    assert args.vocab_size == tokenizer.vocab_size + 3
    check_agreement(ours.architecture, args, vocab_size=args.vocab_size, description="x")
    assert f"load: {output}\n" in text

    report = json.loads((output / "conversion_report.json").read_text())
    assert report["equal"] is True
    assert report["source"]["directory"] == str(model)
    assert {"config.yml", "latest", "global_step0/manifest.json", "tokenizer/tokenizer.json"} <= report["files"].keys()
    with pytest.raises(CheckpointError, match="holds a converted model"):
        convert(model, "--output_dir", output)
    assert convert(model, "--output_dir", output, "--overwrite")[0] == 0


def test_what_computes_something_else_is_not_left_behind(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: Callable[[HuggingFaceSource, str], Tensor] = HuggingFaceSource.read

    def wrong(source: HuggingFaceSource, name: str) -> Tensor:
        return read(source, name) * (1.01 if name.startswith("3.mlp.linear2") else 1.0)

    monkeypatch.setattr(HuggingFaceSource, "read", wrong)
    status, printed = convert(model, "--output_dir", tmp_path / "converted")
    assert status == 1
    assert "not converted: LlamaForCausalLM computes something else than ours" in printed
    assert [path.name for path in (tmp_path / "converted").iterdir()] == ["conversion_report.json"]
    assert json.loads((tmp_path / "converted" / "conversion_report.json").read_text())["equal"] is False


def test_the_configuration_alone_can_be_had(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    status, printed = convert(f"hf:{model}", "--config-only")
    assert (status, printed) == (0, "wrote converted/llama/config.yml")
    assert sorted(path.name for path in Path("converted/llama").iterdir()) == ["config.yml", "tokenizer"]
    with open("converted/llama/config.yml", "a") as file:
        file.write("# mine\n")
    for words in ([], ["--config-only"]):
        with pytest.raises(CheckpointError, match=r"config\.yml is another one than would be written"):
            convert(f"hf:{model}", *words)
    assert convert(f"hf:{model}", "--config-only", "--overwrite")[0] == 0
    assert convert(f"hf:{model}")[0] == 0
    with pytest.raises(CheckpointError, match="holds a converted model, and not only its configuration"):
        convert(f"hf:{model}", "--config-only", "--overwrite")


@pytest.mark.parametrize(
    ("changes", "status", "sentence"),
    [
        ({}, 0, "which does not show that the tensors of the original were put in the right places"),
        ({"norm": "scalenorm"}, UNPROVEN, "not compared: it is not proven to compute the same: no family of models"),
    ],
)
def test_a_checkpoint_of_gpt_neox_is_compared_with_what_it_is_exported_as(
    tmp_path: Path, changes: dict[str, Any], status: int, sentence: str
) -> None:
    settings = {**VARIANTS["llama"], **changes}
    neox_run(tmp_path / "neox", settings, settings)
    output = tmp_path / "converted"
    words = (tmp_path / "neox", "--output_dir", output, "--vocab-size", 59)
    assert convert(*words, "--config-only")[0] == 0
    found, printed = convert(*words)
    assert found == status, printed
    assert sentence in printed
    assert open_model(output).architecture == open_model(tmp_path / "neox", vocab_size=59).architecture
    assert "stays as it was" not in printed
    before = (output / "conversion_report.json").read_bytes()
    found, printed = convert(*words, "--overwrite")
    assert found == status
    assert ("stays as it was; the report of this conversion is " in printed) == (status == UNPROVEN)
    assert ((output / "conversion_report.json").read_bytes() == before) == (status == UNPROVEN)


def test_a_tokenizer_that_cannot_be_read_is_left_out(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").write_text("{")
    status, printed = convert(tmp_path / "model", "--config-only", "--output_dir", tmp_path / "converted")
    assert status == 0
    assert "note: its tokenizer cannot be used: " in printed
    assert [path.name for path in (tmp_path / "converted").iterdir()] == ["config.yml"]


def test_what_is_no_model_of_another_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is no model of another program: give a directory of Hugging Face"):
        convert(tmp_path, "--output_dir", tmp_path / "converted")
