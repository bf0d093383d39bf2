"""What is loaded is what was saved, in a world of one process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from megatron.checkpointing.loading.load import load_checkpoint
from megatron.checkpointing.manifest import check_files
from megatron.checkpointing.saving.host_copies import HostCopies
from megatron.checkpointing.saving.save import save_checkpoint, take_snapshot, write_snapshot
from megatron.engine.protocol import FullTensor, Piece
from megatron.errors import CheckpointError
from tests.unit.checkpointing.fakes import SHAPES, FakeEngine, fake_engine, full_values, same_bits

RUN_STATE = {"iteration": 3, "consumed_tokens": 2**40 + 1, "nested": {"list": [1.1, None, "text"]}}


def test_any_cut_loads_into_any_other_cut_to_the_bit(tmp_path: Path) -> None:
    for seed in range(20):
        values = full_values(seed)
        save_checkpoint(tmp_path, fake_engine(seed=seed).fill(values), iteration=seed, run_state={})
        target = fake_engine(seed=seed + 1000)
        assert load_checkpoint(tmp_path, target) is not None
        assert target.holds(values)


def test_run_state_and_scalars_come_back_as_they_were(tmp_path: Path) -> None:
    engine = fake_engine()
    engine.scalars = {"step": 12, "loss_scale": 0.1 + 0.2}
    path = save_checkpoint(tmp_path, engine, iteration=3, run_state=RUN_STATE, config_yaml="seed: 1\n")
    target = fake_engine(seed=5)
    loaded = load_checkpoint(tmp_path, target)
    assert loaded is not None
    assert (loaded.iteration, loaded.run_state, loaded.path) == (3, RUN_STATE, path)
    assert target.scalars == engine.scalars
    assert target.calls == ["load_scalars", "after_load"]
    assert (path / "configs" / "config.yml").read_text() == "seed: 1\n"


def test_a_checkpoint_has_the_documented_files_and_nothing_else_is_left(tmp_path: Path) -> None:
    further = {"data.json": b"{}\n"}
    path = save_checkpoint(tmp_path, fake_engine(), iteration=10, run_state={}, config_yaml="x: 1\n", files=further)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["global_step10", "latest"]
    assert (tmp_path / "latest").read_text().strip() == "global_step10"
    names = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
    assert names == [".metadata", "__0_0.distcp", "configs/config.yml", "data.json", "manifest.json", "state.json"]
    assert (path / "data.json").read_bytes() == further["data.json"]
    state = json.loads((path / "state.json").read_text())
    assert state["tensors"]["2.mlp.linear1.weight/exp_avg"] == {"shape": [3, 8, 5], "dtype": "float32"}
    assert state["versions"]["torch"] == torch.__version__
    assert sorted(json.loads((path / "manifest.json").read_text())["files"]) == [
        name for name in names if name != "manifest.json"
    ]
    check_files(path, "full")


def test_plain_torch_tools_read_the_files(tmp_path: Path) -> None:
    values = full_values(1)
    path = save_checkpoint(tmp_path, fake_engine(seed=3).fill(values), iteration=1, run_state={})
    dcp_to_torch_save(path, tmp_path / "whole.pt")
    whole = torch.load(tmp_path / "whole.pt")
    assert all(same_bits(whole[name], values[name]) for name in SHAPES)


def test_weights_alone_leave_the_optimizer_as_it_is(tmp_path: Path) -> None:
    values = full_values(1)
    save_checkpoint(tmp_path, fake_engine().fill(values), iteration=1, run_state={})
    target = fake_engine(seed=2)
    load_checkpoint(tmp_path, target, load_optimizer=False)
    zeros = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    assert target.holds({name: values[name] if name.endswith("/weight") else zeros[name] for name in SHAPES})
    assert target.calls == ["after_load"]


def test_a_checkpoint_saved_without_optimizer_state_loads_as_weights_alone(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, fake_engine(), iteration=1, run_state={}, save_optimizer=False)
    with pytest.raises(CheckpointError, match=r"holds no optimizer state.*no_load_optim"):
        load_checkpoint(tmp_path, fake_engine())
    assert load_checkpoint(tmp_path, fake_engine(), load_optimizer=False) is not None


def test_a_copied_snapshot_is_not_changed_by_later_steps(tmp_path: Path) -> None:
    values = full_values(1)
    engine = fake_engine().fill(values)
    snapshot = take_snapshot(engine, iteration=1, run_state={}, copies=HostCopies())
    engine.fill(full_values(2))
    write_snapshot(tmp_path, snapshot, group=engine.groups.world)
    target = fake_engine(seed=4)
    load_checkpoint(tmp_path, target)
    assert target.holds(values)


def test_other_dtypes_are_kept(tmp_path: Path) -> None:
    for dtype in (torch.bfloat16, torch.float64, torch.int64, torch.bool):
        tensor = torch.arange(12).reshape(3, 4).to(dtype)
        save_checkpoint(tmp_path, one_tensor(tensor), iteration=1, run_state={})
        out = torch.zeros_like(tensor)
        load_checkpoint(tmp_path, one_tensor(out))
        assert torch.equal(out, tensor)


def test_a_tensor_of_which_nobody_holds_a_part_is_an_error_not_a_hole(tmp_path: Path) -> None:
    engine = FakeEngine({"a/weight": FullTensor((4, 4), (Piece((0, 0), torch.ones(3, 4)),))})
    with pytest.raises(CheckpointError, match="hold 12 of the 16 elements of a/weight"):
        save_checkpoint(tmp_path, engine, iteration=1, run_state={})
    engine = FakeEngine({"a/weight": FullTensor((4, 4), ())})
    with pytest.raises(CheckpointError, match="no rank holds any element of a/weight"):
        save_checkpoint(tmp_path, engine, iteration=1, run_state={})
    assert list(tmp_path.iterdir()) == []


def one_tensor(tensor: torch.Tensor) -> FakeEngine:
    return FakeEngine({"a/weight": FullTensor(tuple(tensor.shape), (Piece((0,) * tensor.dim(), tensor),))})
