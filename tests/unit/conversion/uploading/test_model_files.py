"""What is checked before an upload: a directory that is not what a conversion wrote is refused, and why is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from megatron.conversion.uploading.model_files import model_files
from megatron.errors import CheckpointError
from tests.unit.conversion.uploading.exported import FILES, write_model

PARTS = {"model-00001-of-00002.safetensors": b"1", "model-00002-of-00002.safetensors": b"2"}
INDEX = json.dumps({"weight_map": {f"tensor{name[10]}": name for name in PARTS}}).encode()
DIVIDED = {"config.json": b"{}", "model.safetensors.index.json": INDEX, **PARTS}


def refusal(directory: Path, *, unproven: bool = False) -> str:
    with pytest.raises(CheckpointError) as caught:
        model_files(directory, unproven=unproven)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("files", [FILES, DIVIDED], ids=["whole", "divided"])
def test_a_model_as_it_was_written_is_taken(tmp_path: Path, files: dict[str, bytes]) -> None:
    directory = write_model(tmp_path / "model", files)
    (directory / "LICENSE").write_bytes(b"do")
    (directory / ".cache").mkdir()
    found = model_files(directory, unproven=False)
    sizes = {name: len(data) for name, data in files.items()} | {"LICENSE": 2}
    assert {name: size for name, size in found.sizes.items() if name != "conversion_report.json"} == sizes
    assert found.left_out == (".cache",)
    assert found.report["equal"] is True


def test_only_what_is_proven_is_taken_unless_said(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "model", equal=False)
    assert "conversion_report.json says: the exported model does not compute the same" in refusal(directory)
    assert model_files(directory, unproven=True).report["equal"] is False
    failed = write_model(tmp_path / "failed", {}, equal=False, problem="layer 3 differs")
    assert "conversion_report.json says: layer 3 differs; export it" in refusal(failed)
    (directory / "conversion_report.json").unlink()
    assert "has no conversion_report.json" in refusal(directory)
    assert model_files(directory, unproven=True).report == {}


def _overwrite(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda directory: (directory / name).write_bytes(data)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda directory: (directory / "config.json").unlink(), "has no config.json"),
        (lambda directory: (directory / "tokenizer.json").unlink(), "lacks tokenizer.json, which the conversion wrote"),
        (_overwrite("model.safetensors", b"Weights"), "model.safetensors has changed since the conversion wrote it"),
        (_overwrite("model.safetensors", b"weight"), "model.safetensors has 6 bytes, the conversion wrote 7"),
        (_overwrite("model-00001-of-00002.safetensors", b""), "was not written by the conversion"),
        (_overwrite("model.safetensors.12-ab.partial", b""), "is a file that was being written"),
        (_overwrite("conversion_report.json", b'{"files"'), "is no report of a conversion"),
        (_overwrite("conversion_report.json", b"[]"), "is no report of a conversion"),
        (lambda directory: (directory / "original").mkdir(), "original is a directory"),
    ],
)
def test_another_directory_is_refused(tmp_path: Path, change: Callable[[Path], object], said: str) -> None:
    directory = write_model(tmp_path / "model")
    change(directory)
    assert said in refusal(directory)


def test_what_is_no_complete_model_is_refused_even_unproven(tmp_path: Path) -> None:
    assert "is not a directory" in refusal(tmp_path / "none", unproven=True)
    directory = write_model(tmp_path / "model", DIVIDED)
    (directory / "conversion_report.json").unlink()
    model_files(directory, unproven=True)
    (directory / "old.safetensors").write_bytes(b"")
    assert "holds old.safetensors, which does not belong to the weights" in refusal(directory, unproven=True)
    (directory / "old.safetensors").unlink()
    (directory / "model-00002-of-00002.safetensors").unlink()
    assert "lacks model-00002-of-00002.safetensors" in refusal(directory, unproven=True)
