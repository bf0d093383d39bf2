"""Checkpoints of ours written from a source: whole, verified, and one tensor at a time."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor

from megatron.checkpointing import planners
from megatron.checkpointing.inspecting.tensors import TensorReader
from megatron.checkpointing.layout import find_checkpoint
from megatron.checkpointing.loading.weights import load_weights
from megatron.checkpointing.manifest import check_files
from megatron.checkpointing.settings import settings_yaml
from megatron.checkpointing.state_file import read_state
from megatron.conversion.converting import write
from megatron.conversion.converting.write import write_checkpoint
from megatron.conversion.opening import open_model
from megatron.errors import CheckpointError
from megatron.model.spec import BuildContext
from tests.unit.conversion.in_memory import MemorySource, weights_of
from tests.unit.model.builders import VARIANTS, VOCAB_SIZE, build_args, build_model

SETTINGS = VARIANTS["llama"]


class OneAtATime(MemorySource):
    """Gives copies, and fails when it is asked for one while another is still somewhere."""

    given: weakref.ref[Tensor] | None = None

    def read(self, name: str) -> Tensor:
        if self.given is not None and self.given() is not None:
            gc.collect()
            assert self.given() is None, f"{self.reads[-1]} is still in memory"
        tensor = super().read(name).clone()
        self.given = weakref.ref(tensor)
        return tensor


def test_weights_become_a_verified_checkpoint_that_loads(tmp_path: Path) -> None:
    weights = weights_of(SETTINGS)
    state = {name.replace("/weight", "/exp_avg"): tensor for name, tensor in weights.items()}
    text = settings_yaml(build_args(**SETTINGS))
    checkpoint = write_checkpoint(MemorySource({**weights, **state}), tmp_path, config_yaml=text)
    assert checkpoint == find_checkpoint(tmp_path) == tmp_path / "global_step0"
    check_files(checkpoint, "full")
    assert read_state(checkpoint).iteration == 0
    assert (checkpoint / "configs" / "config.yml").read_text() == text
    reader = TensorReader(checkpoint)
    assert set(reader) == set(weights)
    assert all(torch.equal(reader[name], tensor) for name, tensor in weights.items())
    model = build_model(build_args(**SETTINGS), context=BuildContext(dtype=torch.float32), padded_vocab_size=64)
    load_weights(tmp_path, model)
    assert torch.equal(next(model.parameters())[:VOCAB_SIZE], weights["0.word_embeddings.weight/weight"])
    assert open_model(tmp_path).architecture.vocab_size == VOCAB_SIZE


def test_a_tensor_is_read_once_and_one_is_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planners, "CHUNK_BYTES", 2048)  # many chunks of each
    monkeypatch.setattr(write, "FILE_BYTES", 20_000)  # and several files
    weights = {name: tensor.bfloat16() for name, tensor in weights_of(SETTINGS).items()}
    source = OneAtATime(weights)
    checkpoint = write_checkpoint(source, tmp_path, config_yaml="")
    assert source.reads == list(weights)
    files = sorted(checkpoint.glob("*.distcp"))
    assert len(files) > 3
    assert max(file.stat().st_size for file in files[:-1]) < 100_000
    check_files(checkpoint, "full")
    reader = TensorReader(checkpoint)
    assert {reader[name].dtype for name in weights} == {torch.float32}
    assert all(torch.equal(reader[name], tensor.float()) for name, tensor in weights.items())


def test_a_source_that_cannot_be_read_says_so_and_leaves_no_latest(tmp_path: Path) -> None:
    class Broken(MemorySource):
        def read(self, name: str) -> Tensor:
            if name.startswith("3."):
                raise CheckpointError("file x is damaged")
            return super().read(name)

    with pytest.raises(CheckpointError, match=r"^file x is damaged$"):
        write_checkpoint(Broken(weights_of(SETTINGS)), tmp_path, config_yaml="")
    assert not (tmp_path / "latest").exists()
    with pytest.raises(CheckpointError):
        find_checkpoint(tmp_path)
