"""Copies of the state in host memory: exact, of whatever views, in memory that is used again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from megatron.checkpointing.saving import host_copies
from megatron.checkpointing.saving.host_copies import HostCopies, stretches_of
from megatron.checkpointing.saving.host_memory import host_memory
from megatron.engine.protocol import FullTensor, Piece
from megatron.errors import CheckpointError
from tests.unit.checkpointing.fakes import FakeEngine, fake_engine, full_values


def one(*tensors: Tensor) -> dict[str, FullTensor]:
    return {
        f"{index}/weight": FullTensor(tuple(tensor.shape), (Piece((0,) * tensor.dim(), tensor),))
        for index, tensor in enumerate(tensors)
    }


def only(tensors: dict[str, FullTensor]) -> list[Tensor]:
    return [piece.tensor for full in tensors.values() for piece in full.pieces]


@pytest.mark.parametrize("seed", range(8))
def test_copies_of_any_cut_hold_the_same_bits_and_keep_them(seed: int) -> None:
    engine = fake_engine(seed=seed).fill(full_values(seed))
    copied = HostCopies().take(engine.state_tensors())
    engine.fill(full_values(seed + 1))
    assert FakeEngine(copied).holds(full_values(seed))


def test_the_memory_of_one_copy_is_that_of_the_next() -> None:
    values = torch.arange(100_000.0)
    copies = HostCopies()
    copies.prepare(one(values, values * 2))
    first = only(copies.take(one(values, values * 2)))
    places = [tensor.data_ptr() for tensor in first]
    values += 1
    second = only(copies.take(one(values, values * 2)))
    assert [tensor.data_ptr() for tensor in second] == places
    assert torch.equal(second[0], values)
    assert torch.equal(second[1], values * 2)


def test_views_of_one_tensor_are_copied_at_once_and_far_ones_by_themselves() -> None:
    flat = torch.arange(200_000, dtype=torch.float64)
    near = [flat[5:10].view(5), flat[10:410].view(20, 20), flat[2000:2004]]
    far = [flat[150_000:150_007]]
    found = stretches_of(piece for full in one(*far, *near).values() for piece in full.pieces)
    assert [(stretch.start, stretch.end) for stretch in found] == [
        (0, 2004 * 8),  # from the last multiple of 64 bytes on
        (150_000 * 8, 150_007 * 8),
    ]
    assert found[1].place >= found[0].size
    assert sum(stretch.size for stretch in found) < flat.nbytes / 10
    copied = only(HostCopies().take(one(*far, *near)))
    assert all(torch.equal(mine, yours) for mine, yours in zip(copied, [*far, *near], strict=True))


def test_tensors_of_all_kinds_are_copied() -> None:
    tensors = [
        torch.tensor(3.5, dtype=torch.bfloat16),
        torch.arange(24, dtype=torch.int64).view(2, 3, 4).transpose(0, 2)[1:],
        torch.zeros(0, 4),
        torch.tensor([True, False]),
        torch.randn(3, 5).t(),
    ]
    copied = only(HostCopies().take(one(*tensors)))
    assert all(torch.equal(mine, yours) for mine, yours in zip(copied, tensors, strict=True))
    assert [mine.dtype for mine in copied] == [yours.dtype for yours in tensors]
    assert HostCopies().take({}) == {}


def test_more_tensors_than_before_get_more_memory() -> None:
    copies = HostCopies()
    copies.prepare(one(torch.zeros(10)))
    values = torch.randn(1000)
    assert torch.equal(only(copies.take(one(values)))[0], values)


def test_memory_that_cannot_be_had_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(size: int, *, device: torch.device) -> Tensor:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(host_copies, "host_memory", none_left)
    with pytest.raises(
        CheckpointError, match=r"needs 0\.0 GiB of host memory.*Cannot allocate memory.*async_save to false"
    ):
        HostCopies().take(one(torch.zeros(10)))


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="this system does not tell about its memory")
def test_the_pages_are_there_before_they_are_written_and_stay_with_this_process() -> None:
    size = 8 << 20
    before = resident_bytes()
    memory = host_memory(size, device=torch.device("cpu"))
    assert resident_bytes() - before > 0.9 * size
    mapping = mapping_of(memory.data_ptr())
    assert "dc" in mapping, "loader processes that are forked later would share the pages"


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def mapping_of(address: int) -> list[str]:
    """The flags of the mapping that holds an address ("dc": not copied into forked processes)."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        word = line.split()[0]
        if "-" in word and not word.endswith(":"):
            low, high = (int(part, 16) for part in word.split("-"))
            inside = low <= address < high
        elif inside and word == "VmFlags:":
            return line.split()[1:]
    return []
