"""The files that a process writes: which tensor is in which, what torch would have written, all of it on the disk."""

from __future__ import annotations

import errno
import io
import os
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader

from megatron.checkpointing.loading.load import load_checkpoint
from megatron.checkpointing.manifest import check_files
from megatron.checkpointing.planners import PieceSavePlanner
from megatron.checkpointing.saving import hashing_writer, writeback
from megatron.checkpointing.saving.hashing_writer import plain_archives, spread, standing_alone
from megatron.checkpointing.saving.save import save_checkpoint
from megatron.engine.protocol import FullTensor, Piece
from megatron.errors import CheckpointError
from tests.unit.checkpointing.fakes import FakeEngine

LENGTHS = (3000, 10, 500, 2500, 40, 1200, 7, 900)


def views(seed: int = 0) -> dict[str, Tensor]:
    """Views of one flat tensor, as of ZeRO."""
    flat = torch.randn(sum(LENGTHS), generator=torch.Generator().manual_seed(seed))
    return {f"{index}/weight": part for index, part in enumerate(flat.split(list(LENGTHS)))}


def engine_of(tensors: dict[str, Tensor]) -> FakeEngine:
    return FakeEngine(
        {
            name: FullTensor(tuple(tensor.shape), (Piece((0,) * tensor.dim(), tensor),))
            for name, tensor in tensors.items()
        }
    )


@pytest.fixture
def _several_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if these tensors were large."""
    monkeypatch.setattr(hashing_writer, "FILE_BYTES", 1 << 13)
    monkeypatch.setattr(hashing_writer, "WRITEBACK_BYTES", 1 << 11)
    monkeypatch.setattr(hashing_writer, "BUFFER_BYTES", 1 << 10)


@pytest.mark.usefixtures("_several_files")
def test_tensors_are_spread_over_files_of_about_the_same_size(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, engine_of(views()), iteration=1, run_state={})
    sizes = [file.stat().st_size for file in path.glob("*.distcp")]
    assert len(sizes) == hashing_writer.FILES
    assert max(sizes) < sum(LENGTHS) * 4 / hashing_writer.FILES * 1.8  # 3000 of the 8157 numbers are in one tensor
    check_files(path, "full")
    target = {name: torch.zeros_like(tensor) for name, tensor in views().items()}
    load_checkpoint(tmp_path, engine_of(target))
    assert all(torch.equal(target[name], tensor) for name, tensor in views().items())


@pytest.mark.usefixtures("_several_files")
def test_each_chunk_is_what_torch_would_have_saved_of_a_tensor_of_its_own(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, engine_of(views()), iteration=1, run_state={})
    stored = FileSystemReader(path).read_metadata().storage_data
    assert len(stored) == len(LENGTHS)
    for index, place in stored.items():
        expected = io.BytesIO()
        with plain_archives():
            torch.save(views()[index.fqn].clone(), expected)
        written = (path / place.relative_path).read_bytes()[place.offset : place.offset + place.length]
        assert written == expected.getvalue()


@pytest.mark.usefixtures("_several_files")
def test_every_file_is_synchronised_when_all_of_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synchronised: dict[int, int] = {}

    def fsync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        synchronised[status.st_ino] = status.st_size
        real(descriptor)

    real = os.fsync
    monkeypatch.setattr(os, "fsync", fsync)
    path = save_checkpoint(tmp_path, engine_of(views()), iteration=1, run_state={})
    files = [file.stat() for file in path.rglob("*") if file.is_file()]
    assert len(files) == hashing_writer.FILES + 3
    assert {status.st_ino: status.st_size for status in files}.items() <= synchronised.items()


@pytest.mark.usefixtures("_several_files")
def test_one_of_several_files_that_cannot_be_written_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(self: hashing_writer.HashedFile, data: object) -> int:
        if str(self.name).endswith("__0_2.distcp"):
            self.failure = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise self.failure
        return real(self, data)

    real = hashing_writer.HashedFile.write
    monkeypatch.setattr(hashing_writer.HashedFile, "write", write)
    with pytest.raises(CheckpointError, match="No space left on device"):
        save_checkpoint(tmp_path, engine_of(views()), iteration=1, run_state={})
    assert list(tmp_path.iterdir()) == []
    assert not [thread for thread in threading.enumerate() if "distcp" in thread.name]


@pytest.mark.usefixtures("_several_files")
def test_a_system_that_cannot_be_told_to_begin_writing_writes_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, ...]] = []
    monkeypatch.setattr(writeback, "_sync_file_range", lambda: lambda *arguments: told.append(arguments))
    save_checkpoint(tmp_path, engine_of(views()), iteration=1, run_state={})
    assert told
    for _, offset, length, _ in told:
        assert offset + length <= 1.5 * 4 * sum(LENGTHS)
        assert length >= hashing_writer.WRITEBACK_BYTES
    monkeypatch.setattr(writeback, "_sync_file_range", lambda: None)
    check_files(save_checkpoint(tmp_path, engine_of(views()), iteration=2, run_state={}), "full")


def test_a_tensor_is_copied_only_if_it_is_strided() -> None:
    flat = torch.arange(24.0)
    part = flat[6:18].view(3, 4)
    alone = standing_alone(part)
    assert alone.data_ptr() == part.data_ptr()
    assert alone.untyped_storage().nbytes() == part.nbytes
    strided = standing_alone(part[:, 1:3])
    assert torch.equal(strided, part[:, 1:3])
    assert strided.untyped_storage().nbytes() == strided.nbytes
    one_of_three = torch.zeros(1, 3)[:, 1]
    for tensor in (torch.tensor([1, 2], dtype=torch.bfloat16)[1], torch.tensor([True, False])[1:], one_of_three):
        alone = standing_alone(tensor)
        assert torch.equal(alone, tensor)
        assert (alone.shape, alone.dtype) == (tensor.shape, tensor.dtype)


def test_few_bytes_make_one_file_and_no_tensors_none() -> None:
    items = PieceSavePlanner(engine_of(views()).tensors).create_local_plan().items
    assert spread(items) == [items]
    assert spread([]) == []
