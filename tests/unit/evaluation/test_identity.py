"""A model is told from every other."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from megatron.checkpointing.loading.load import LoadedCheckpoint
from megatron.evaluation.identity import identify
from tests.unit.neox_arguments.minimal import build


def test_a_checkpoint_is_known_by_its_manifest(tmp_path: Path) -> None:
    checkpoint = tmp_path / "global_step7"
    checkpoint.mkdir()
    (checkpoint / "manifest.json").write_bytes(b"{}")
    found = identify(build(load=str(tmp_path)), LoadedCheckpoint(7, {}, checkpoint))
    assert found == {
        "load": str(tmp_path),
        "checkpoint": str(checkpoint),
        "iteration": 7,
        "manifest_sha256": hashlib.sha256(b"{}").hexdigest(),
    }


@pytest.mark.parametrize("prefix", ["", "hf:"])
def test_a_model_of_another_program_is_known_by_its_files(tmp_path: Path, prefix: str) -> None:
    files = {"config.json": b"{}", "model-1.safetensors": b"1", "model-2.safetensors": b"2"}
    for name, content in {**files, "README.md": b"read me"}.items():
        (tmp_path / name).write_bytes(content)
    found = identify(build(load=f"{prefix}{tmp_path}"), None)
    assert found["program"] == "Hugging Face transformers"
    assert found["sha256"] == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def test_a_model_of_the_hub_is_known_by_its_commit(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0f3c"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert identify(build(load=f"hf:{snapshot}"), None)["commit"] == "0f3c"


def test_a_checkpoint_of_gpt_neox_is_known_by_its_weights(tmp_path: Path) -> None:
    step = tmp_path / "global_step30"
    step.mkdir()
    for name in ("mp_rank_00_model_states.pt", "layer_00-model_00-model_states.pt", "zero_pp_rank_0_optim_states.pt"):
        (step / name).write_bytes(name.encode())
    (tmp_path / "latest").write_text("global_step30")
    found = identify(build(load=str(tmp_path)), None)
    assert (found["program"], found["iteration"]) == ("GPT-NeoX", 30)
    assert sorted(found["sha256"]) == ["layer_00-model_00-model_states.pt", "mp_rank_00_model_states.pt"]


def test_what_cannot_be_read_any_more_is_said(tmp_path: Path) -> None:
    found = identify(build(load=str(tmp_path), load_if_exists=True), LoadedCheckpoint(7, {}, tmp_path / "global_step7"))
    assert found["load"] == str(tmp_path)
    assert "global_step7/manifest.json" in found["error"]
