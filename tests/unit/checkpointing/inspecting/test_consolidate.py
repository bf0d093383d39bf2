"""All weights in one safetensors file, which its own library reads."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from megatron.checkpointing.files import sha256_of_file
from megatron.checkpointing.inspecting import consolidate as module
from megatron.checkpointing.inspecting.consolidate import consolidate
from megatron.checkpointing.inspecting.contents import Contents, read_contents
from megatron.checkpointing.inspecting.output import output_file
from megatron.checkpointing.saving.source_version import source_version
from megatron.checkpointing.settings import SETTINGS
from megatron.errors import CheckpointError
from tests.unit.checkpointing.inspecting.saved import PARAMETERS, random_values, save_run

VALUES = random_values()


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    return read_contents(save_run(tmp_path_factory.mktemp("saved"), VALUES))


def weights() -> dict[str, Tensor]:
    return {name: VALUES[f"{name}/weight"] for name in PARAMETERS}


def test_weights_are_the_same_to_the_bit_and_say_where_they_are_from(contents: Contents, tmp_path: Path) -> None:
    output = tmp_path / "out.safetensors"
    assert consolidate(contents, output) == output.stat().st_size
    found = load_file(output)
    assert found.keys() == weights().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in weights().items())
    with safe_open(output, framework="pt") as file:
        said = file.metadata()
    source = source_version()
    assert said == {
        "format": "pt",
        "checkpoint": "global_step3",
        "iteration": "3",
        "config_sha256": sha256_of_file(contents.path / SETTINGS),
        **({"commit": source["commit"]} if source else {}),
    }


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_may_have_another_dtype_and_state_keeps_its_own(
    contents: Contents, tmp_path: Path, dtype: torch.dtype
) -> None:
    output = tmp_path / "out.safetensors"
    consolidate(contents, output, optimizer=True, dtype=str(dtype).removeprefix("torch."))
    found = load_file(output)
    state = {name: tensor for name, tensor in VALUES.items() if not name.endswith("/weight")}
    assert found.keys() == {*weights(), *state}
    assert all(torch.equal(found[name], tensor.to(dtype)) for name, tensor in weights().items())
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_every_value_lies_at_a_multiple_of_its_size(contents: Contents, tmp_path: Path) -> None:
    output = tmp_path / "out.safetensors"
    consolidate(contents, output, optimizer=True, dtype="bfloat16")
    content = output.read_bytes()
    length = int.from_bytes(content[:8], "little")
    entries = json.loads(content[8 : 8 + length])
    del entries["__metadata__"]
    sizes = {"F32": 4, "BF16": 2}
    assert {entry["dtype"] for entry in entries.values()} == set(sizes)
    assert all((8 + length + entry["data_offsets"][0]) % sizes[entry["dtype"]] == 0 for entry in entries.values())


def test_a_value_beyond_the_dtype_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    values = random_values(kinds=("weight",))
    values["2.attention.dense.weight/weight"][3, 4] = 1e5
    contents = read_contents(save_run(tmp_path / "saved", values))
    with pytest.raises(
        CheckpointError, match=r"^2.attention.dense.weight has a value of 100000, beyond the 65504 that float16 holds"
    ):
        consolidate(contents, tmp_path / "out.safetensors", dtype="float16")
    consolidate(contents, tmp_path / "out.safetensors", dtype="bfloat16")
    with pytest.raises(CheckpointError, match="holds no optimizer state"):
        consolidate(contents, tmp_path / "state.safetensors", optimizer=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.safetensors", "saved"]


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
    contents: Contents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(CheckpointError, match=rf"needs [\d,]+ bytes, and the disk of {tmp_path} has 1,000 left"):
        consolidate(contents, tmp_path / "out.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up_meanwhile_leaves_what_was_there(
    contents: Contents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.safetensors"
    output.write_text("before")

    def full(*arguments: Any) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "write_values", full)
    with pytest.raises(CheckpointError, match=rf"^{output} cannot be written: the disk is full"):
        consolidate(contents, output)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_a_file_that_is_read_back_otherwise_never_gets_its_name(
    contents: Contents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def altered(file: Any, tensor: Tensor, target: Any, write: Any = module.write_values) -> str:
        written: str = write(file, tensor, target)
        if target.name == "10.norm.scale":
            file.seek(-1, os.SEEK_CUR)
            file.write(b"\x00")
        return written

    monkeypatch.setattr(module, "write_values", altered)
    with pytest.raises(CheckpointError, match=r"10\.norm\.scale is read back otherwise"):
        consolidate(contents, tmp_path / "out.safetensors")
    assert not list(tmp_path.iterdir())


def test_where_the_file_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "there.safetensors").touch()
    for text, said in {
        "weights.bin": "give a name that ends in .safetensors",
        "memory://bucket/x.safetensors": "must be a file of this machine",
        f"{tmp_path}/nowhere/x.safetensors": f"the directory {tmp_path}/nowhere does not exist",
        f"{tmp_path}/there.safetensors": "give another name, or --force to replace it",
    }.items():
        with pytest.raises(CheckpointError, match=said):
            output_file(text, force=False)
    assert output_file(f"{tmp_path}/there.safetensors", force=True) == tmp_path / "there.safetensors"
