"""Files of other programs: what is read, what is refused, and that nothing in them runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections import OrderedDict
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy
import pytest
import torch

from megatron.conversion.reading.pickled import read_pickled
from megatron.conversion.reading.safe_classes import StandIn
from megatron.errors import CheckpointError


class Payload:
    """Calls a function when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("is_zip", [True, False])
def test_what_a_file_would_run_does_not_run_unless_it_is_trusted(tmp_path: Path, is_zip: bool) -> None:
    file, made = tmp_path / "layer.pt", tmp_path / "made"
    torch.save({"weight": torch.ones(3), "x": Payload(made)}, file, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(CheckpointError, match=r"layer\.pt names posix\.mkdir, .* set trust_checkpoint: true$"):
        read_pickled(file, trusted=False)
    assert not made.exists()
    assert torch.equal(read_pickled(file, trusted=True)["weight"], torch.ones(3))
    assert made.exists()


def test_a_class_that_is_not_listed_is_named(tmp_path: Path) -> None:
    torch.save({"x": Path}, tmp_path / "x.pt")
    torch.save({"x": timedelta(1)}, tmp_path / "y.pt")
    with pytest.raises(CheckpointError, match=r"x\.pt names pathlib\.Path, "):
        read_pickled(tmp_path / "x.pt", trusted=False)
    with pytest.raises(CheckpointError, match=r"y\.pt names datetime\.timedelta, "):
        read_pickled(tmp_path / "y.pt", trusted=False)


@pytest.mark.parametrize("is_zip", [True, False])
def test_states_that_hold_no_code_are_read(tmp_path: Path, is_zip: bool) -> None:
    state = {
        "module": OrderedDict(weight=torch.arange(3, dtype=torch.bfloat16)),
        "np_rng_state": numpy.random.RandomState(1).get_state(),
        "number": numpy.float64(0.5),
        "args": argparse.Namespace(hidden_size=4, paths=[Path("a")]),
        "names": {"a", "b"},
    }
    torch.save(state, tmp_path / "x.pt", _use_new_zipfile_serialization=is_zip)
    read = read_pickled(tmp_path / "x.pt", trusted=False)
    assert torch.equal(read["module"]["weight"], state["module"]["weight"])
    assert numpy.array_equal(read["np_rng_state"][1], state["np_rng_state"][1])
    assert (read["number"], read["args"].hidden_size, read["names"]) == (0.5, 4, {"a", "b"})


def test_objects_of_deepspeed_become_stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "deepspeed.runtime.fp16.loss_scaler"
    scaler = type("DynamicLossScaler", (), {"__module__": name})
    made = scaler()
    made.cur_scale = 1024.0
    with monkeypatch.context() as patched:
        for package in ("deepspeed", "deepspeed.runtime", "deepspeed.runtime.fp16", name):
            module = ModuleType(package)
            module.DynamicLossScaler = scaler  # type: ignore[attr-defined]
            patched.setitem(sys.modules, package, module)
        torch.save({"loss_scaler": made}, tmp_path / "x.pt")
    monkeypatch.setitem(sys.modules, "deepspeed", None)  # importing it is an error
    monkeypatch.setitem(sys.modules, name, None)
    read = read_pickled(tmp_path / "x.pt", trusted=False)["loss_scaler"]
    assert isinstance(read, StandIn)
    assert (type(read).__name__, read.cur_scale) == ("DynamicLossScaler", 1024.0)


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.97])
def test_a_truncated_file_is_damaged(tmp_path: Path, is_zip: bool, part: float) -> None:
    file = tmp_path / "layer_02.pt"
    torch.save({"weight": torch.ones(1000)}, file, _use_new_zipfile_serialization=is_zip)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * part)])
    for trusted in (False, True):
        with pytest.raises(CheckpointError, match=r"layer_02\.pt is damaged or incomplete"):
            read_pickled(file, trusted=trusted)


def test_what_is_no_file_of_torch_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"):
        read_pickled(tmp_path / "absent.pt", trusted=False)
    pointer = tmp_path / "pointer.pt"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(CheckpointError, match="git lfs pull"):
        read_pickled(pointer, trusted=False)


def test_tensors_are_mapped_not_read(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(1000)}, tmp_path / "x.pt")
    weight = read_pickled(tmp_path / "x.pt", trusted=False)["weight"]
    with (tmp_path / "x.pt").open("r+b") as file:  # seen through the map
        content = file.read()
        file.seek(content.index(b"\x00\x00\x80\x3f" * 8))
        file.write(b"\x00\x00\x00\x40")
    assert weight[0] == 2
