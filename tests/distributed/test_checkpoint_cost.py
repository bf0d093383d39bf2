"""What a checkpoint may cost: bytes on the disk those of the state, memory of loading a process's own share and one chunk."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist

from megatron.checkpointing import planners
from megatron.checkpointing.loading.load import load_checkpoint
from megatron.checkpointing.saving.save import save_checkpoint
from megatron.engine.protocol import FullTensor, Piece
from megatron.mpu.groups import Group
from tests.unit.checkpointing.fakes import FakeEngine
from tests.worlds import run_world
from tools.benchmark.resident import resident_peak

ROWS, COLUMNS = 4096, 4096
CHUNK_BYTES = 4 << 20
SMALL_CHANGE = 6 << 20
"""Bytes that loading may take for itself: plans and messages, and what the allocator keeps of a small chunk that was freed."""


def engine(tensors: dict[str, FullTensor]) -> FakeEngine:
    size = dist.get_world_size()
    return FakeEngine(tensors, world=Group(dist.get_rank(), size, tuple(range(size)), dist.group.WORLD))


def by_rows(rank: int) -> FakeEngine:
    """A half of the rows of the embedding, and a norm that every rank holds."""
    rows = torch.arange(rank * ROWS // 2, (rank + 1) * ROWS // 2, dtype=torch.float32)
    embedding = rows[:, None] * COLUMNS + torch.arange(COLUMNS)
    return engine(
        {
            "0.word_embeddings/weight": FullTensor((ROWS, COLUMNS), (Piece((rank * ROWS // 2, 0), embedding),)),
            "1.norm/weight": FullTensor((1 << 18,), (Piece((0,), torch.ones(1 << 18)),)),
        }
    )


def by_columns(rank: int) -> FakeEngine:
    columns = torch.ones(ROWS, COLUMNS // 2)
    return engine(
        {
            "0.word_embeddings/weight": FullTensor((ROWS, COLUMNS), (Piece((0, rank * COLUMNS // 2), columns),)),
            "1.norm/weight": FullTensor((1 << 18,), (Piece((0,), torch.zeros(1 << 18)),)),
        }
    )


def cost_cases(rank: int, directory: Path) -> tuple[int, int, bool]:
    """Bytes on the disk, bytes of memory of loading, and whether what was loaded is right."""
    planners.CHUNK_BYTES = CHUNK_BYTES  # this process was forked for this test
    path = save_checkpoint(directory, by_rows(rank), iteration=1, run_state={})
    target = by_columns(rank)
    load_checkpoint(directory, target)  # for the first time, libraries are loaded as well
    (piece,) = target.tensors["0.word_embeddings/weight"].pieces
    piece.tensor.zero_()
    with resident_peak() as memory:
        load_checkpoint(directory, target)
    whole = torch.arange(ROWS * COLUMNS, dtype=torch.float32).view(ROWS, COLUMNS)
    right = torch.equal(piece.tensor, whole[:, rank * COLUMNS // 2 : (rank + 1) * COLUMNS // 2])
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()), memory.bytes, right


def test_bytes_on_the_disk_are_those_of_the_state_and_loading_holds_one_chunk(tmp_path: Path) -> None:
    state_bytes = 4 * (ROWS * COLUMNS + (1 << 18))
    for disk_bytes, memory_bytes, right in run_world(2, cost_cases, tmp_path):
        assert state_bytes < disk_bytes <= 1.01 * state_bytes
        assert memory_bytes <= CHUNK_BYTES + SMALL_CHANGE
        assert right
