"""Tensors read whole, one at a time, from checkpoints that were cut at random."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from megatron.checkpointing.errors import DamagedCheckpoint
from megatron.checkpointing.inspecting.tensors import TensorReader, iterate_tensors
from megatron.checkpointing.saving.save import save_checkpoint
from megatron.engine.protocol import FullTensor, Piece
from megatron.errors import CheckpointError
from tests.unit.checkpointing.fakes import SHAPES, FakeEngine, fake_engine, full_values, same_bits


def save(directory: Path, values: dict[str, Tensor], *, seed: int = 1) -> Path:
    """A checkpoint of these values, cut at random by the seed."""
    shapes = {name: tuple(tensor.shape) for name, tensor in values.items()}
    return save_checkpoint(directory, fake_engine(shapes, seed=seed).fill(values), iteration=3, run_state={})


def test_all_tensors_come_whole_in_the_order_of_names(tmp_path: Path) -> None:
    values = full_values(0)
    for seed in range(4):
        found = dict(iterate_tensors(save(tmp_path / str(seed), values, seed=seed)))
        assert list(found) == sorted(SHAPES)
        assert all(same_bits(found[name], values[name]) for name in SHAPES)


def test_tensors_are_selected_by_name(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, full_values(0))
    wanted = ["4.norm.scale/weight", "0.word_embeddings.weight/exp_avg"]
    assert [name for name, _ in iterate_tensors(checkpoint, wanted)] == sorted(wanted)


def test_the_dtype_is_the_saved_one(tmp_path: Path) -> None:
    values = torch.randn(3, 4, dtype=torch.float64)
    engine = FakeEngine({"a/weight": FullTensor((3, 4), (Piece((0, 0), values),))})
    checkpoint = save_checkpoint(tmp_path, engine, iteration=1, run_state={})
    assert TensorReader(checkpoint).saved["a/weight"].size == 96
    assert torch.equal(dict(iterate_tensors(checkpoint))["a/weight"], values)


def test_a_name_that_is_not_there_is_told(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, full_values(0))
    with pytest.raises(
        CheckpointError, match=r'no tensor "4.norm.scal/weight" \(did you mean "4.norm.scale/weight"\?\)'
    ):
        dict(iterate_tensors(checkpoint, ["4.norm.scal/weight"]))


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, full_values(0))
    file = next(checkpoint.glob("*.distcp"))
    file.unlink()
    with pytest.raises(DamagedCheckpoint, match=str(file)):
        dict(iterate_tensors(checkpoint))


def test_elements_that_no_chunk_holds_are_told(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, full_values(0))
    reader = TensorReader(checkpoint)
    del reader._metadata.state_dict_metadata["0.word_embeddings.weight/weight"].chunks[0]
    with pytest.raises(DamagedCheckpoint, match=r"of the 222 elements of 0.word_embeddings.weight/weight"):
        reader["0.word_embeddings.weight/weight"]
