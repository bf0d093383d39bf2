"""The logical hash of a checkpoint: what it depends on and what not."""

from __future__ import annotations

import hashlib
import json
import struct
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from megatron.checkpointing import digest
from megatron.checkpointing.digest import logical_sha256
from megatron.checkpointing.errors import DamagedCheckpoint
from megatron.checkpointing.places import place
from megatron.checkpointing.saving.save import save_checkpoint
from megatron.checkpointing.state_file import STATE
from megatron.engine.protocol import FullTensor, Piece
from tests.unit.checkpointing.fakes import SHAPES, FakeEngine, fake_engine, full_values

RUN_STATE = {"iteration": 3, "consumed_samples": 96, "recent_losses": [2.5]}
NAME = "2.mlp.linear1.weight/exp_avg"


@pytest.fixture
def values() -> dict[str, Tensor]:
    return full_values(0)


def save(
    directory: Path, tensors: Mapping[str, Tensor], *, scalars: Mapping[str, Any] | None = None, **changes: Any
) -> Path:
    """A checkpoint in which every tensor is one piece."""
    whole = {name: FullTensor(tuple(each.shape), (Piece((0,) * each.dim(), each),)) for name, each in tensors.items()}
    engine = FakeEngine(whole)
    engine.scalars = {**engine.scalars, **(scalars or {})}
    return save_checkpoint(directory, engine, **{"iteration": 3, "run_state": RUN_STATE, **changes})


def test_neither_the_cut_nor_the_order_of_names_nor_the_directory_counts(
    tmp_path: Path, values: dict[str, Tensor]
) -> None:
    paths = [save(tmp_path / "whole", values), save(tmp_path / "reversed", dict(reversed(values.items())))]
    for seed in range(3):
        engine = fake_engine(seed=seed).fill(values)
        paths.append(save_checkpoint(tmp_path / f"{seed}", engine, iteration=3, run_state=RUN_STATE))
    assert len({logical_sha256(path) for path in paths}) == 1


def test_neither_the_time_nor_versions_nor_the_world_nor_further_files_count(
    tmp_path: Path, values: dict[str, Tensor]
) -> None:
    plain = save(tmp_path / "plain", values)
    other = save(tmp_path / "other", values, config_yaml="seed: 1\n", files={"data.json": b"{}"})
    state = json.loads((other / STATE).read_bytes())
    state |= {"saved_at": "2001-01-01T00:00:00+00:00", "world_size": 512, "versions": {}}
    state["run_state"] = dict(reversed(state["run_state"].items()))
    (other / STATE).write_text(json.dumps(state))
    assert logical_sha256(other) == logical_sha256(plain)


def _one_bit_of(values: dict[str, Tensor]) -> dict[str, Tensor]:
    changed = values[NAME].clone()
    changed.view(torch.int32).view(-1)[7] ^= 1
    return {**values, NAME: changed}


def _reshaped(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**values, NAME: values[NAME].reshape(8, 3, 5)}


def _renamed(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.replace("linear1", "linear2"): tensor for name, tensor in values.items()}


def _of_other_dtype(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**values, NAME: values[NAME].view(torch.int32)}


def _without_one(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in values.items() if name != NAME}


def _exchanged(values: dict[str, Tensor]) -> dict[str, Tensor]:
    other = NAME.replace("exp_avg", "weight")
    return {**values, NAME: values[other], other: values[NAME]}


@pytest.mark.parametrize("change", [_one_bit_of, _reshaped, _renamed, _of_other_dtype, _without_one, _exchanged])
def test_every_change_of_a_tensor_counts(tmp_path: Path, values: dict[str, Tensor], change: Any) -> None:
    plain, changed = save(tmp_path / "plain", values), save(tmp_path / "changed", change(values))
    assert logical_sha256(changed) != logical_sha256(plain)


@pytest.mark.parametrize(
    "changes",
    [
        {"iteration": 4},
        {"run_state": {**RUN_STATE, "consumed_samples": 97}},
        {"run_state": {**RUN_STATE, "recent_losses": [2.5, 2.5]}},
        {"scalars": {"loss_scale": 0.2}},
        {"scalars": {"optimizer_step": 1}},
    ],
)
def test_every_counter_counts(tmp_path: Path, values: dict[str, Tensor], changes: dict[str, Any]) -> None:
    plain, changed = save(tmp_path / "plain", values), save(tmp_path / "changed", values, **changes)
    assert logical_sha256(changed) != logical_sha256(plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64])
def test_any_dtype_has_one(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {"a": torch.ones(3, 2, dtype=dtype), "b": torch.tensor(1.0).to(dtype)}
    assert len(logical_sha256(save(tmp_path, tensors))) == 64


def test_it_is_made_of_these_bytes_for_ever(tmp_path: Path) -> None:
    """Somebody may have written it down. Other bytes need another `RECIPE`."""
    tensors = {"b/weight": torch.arange(6.0).view(2, 3), "a/weight": torch.tensor([1, 2], dtype=torch.bfloat16)}
    content = (
        b'"logical checkpoint 1"\n'
        b'{"iteration": 3, "run_state": {"consumed_samples": 96, "iteration": 3, "recent_losses": [2.5]}, '
        b'"scalars": {"loss_scale": 0.1, "step": 7}}\n'
        b'{"dtype": "bfloat16", "name": "a/weight", "shape": [2]}\n'
        b"\x80\x3f\x00\x40"
        b'{"dtype": "float32", "name": "b/weight", "shape": [2, 3]}\n' + struct.pack("<6f", 0, 1, 2, 3, 4, 5)
    )
    assert logical_sha256(save(tmp_path, tensors)) == hashlib.sha256(content).hexdigest()


def test_a_remote_checkpoint_has_the_same_one(tmp_path: Path, values: dict[str, Tensor]) -> None:
    local = save(tmp_path, values)
    remote = place(f"memory://digest/{local.name}")
    for path in local.rglob("*"):
        if path.is_file():
            target = remote / str(path.relative_to(local))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    assert logical_sha256(remote) == logical_sha256(local)


def test_one_tensor_is_in_memory_at_a_time(
    tmp_path: Path, values: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is let go of before the next one is read."""
    read, alive = digest.iterate_tensors, []

    def watched(checkpoint: Path) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in read(checkpoint):
            alive.append(weakref.ref(tensor))
            pair = (name, tensor)
            del tensor
            yield pair
            del pair
            assert alive[-1]() is None

    monkeypatch.setattr(digest, "iterate_tensors", watched)
    logical_sha256(save(tmp_path, values))
    assert len(alive) == len(SHAPES)


def test_a_missing_file_is_told(tmp_path: Path, values: dict[str, Tensor]) -> None:
    path = save(tmp_path, values)
    (path / "__0_0.distcp").unlink()
    with pytest.raises(DamagedCheckpoint, match=r"__0_0.distcp"):
        logical_sha256(path)
