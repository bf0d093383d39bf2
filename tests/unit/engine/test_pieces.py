"""Flat runs of shards as rectangles of full tensors: complete, disjoint, few, and views."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from megatron.engine.pieces import Rectangle, rectangles, shard_pieces
from megatron.mpu.shard import ShardInfo


def no_init(tensor: Tensor, generator: torch.Generator) -> None:
    """An init method that is never called."""


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 4), (1, 5), (4, 1), (2, 3, 4), (3, 1, 2), (2, 2, 3, 2)])
def test_rectangles_cover_every_run_exactly_and_are_at_most_2d_minus_1(shape: tuple[int, ...]) -> None:
    total = math.prod(shape)
    numbers = torch.arange(total).view(shape)
    for start, end in itertools.combinations(range(total + 1), 2):
        cut = list(rectangles(shape, start, end - start))
        covered = [value for rectangle in cut for value in _values(numbers, rectangle)]
        assert covered == list(range(start, end))
        assert len(cut) <= max(1, 2 * len(shape) - 1)


def test_an_empty_run_has_no_rectangles() -> None:
    assert list(rectangles((3, 4), 5, 0)) == []


def _values(numbers: Tensor, rectangle: Rectangle) -> list[int]:
    where = tuple(slice(o, o + n) for o, n in zip(rectangle.offsets, rectangle.sizes, strict=True))
    return numbers[where].reshape(-1).tolist()


SHARDS = {
    "replicated": {"full_shape": (5, 3)},
    "replicated vector": {"full_shape": (7,)},
    "rows": {"full_shape": (6, 5), "dim": 0},
    "columns": {"full_shape": (3, 8), "dim": 1},
    "fused rows": {"full_shape": (12, 3), "dim": 0, "parts": (4, 6, 2)},
    "fused columns": {"full_shape": (2, 10), "dim": 1, "parts": (4, 6)},
    "padded rows": {"full_shape": (8, 3), "dim": 0, "valid_rows": 5},
    "padded rows, whole": {"full_shape": (8, 3), "valid_rows": 5},
}


@pytest.mark.parametrize("tensor_ranks", [1, 2])
@pytest.mark.parametrize("data_ranks", [1, 3])
@pytest.mark.parametrize("name", SHARDS)
def test_the_pieces_of_all_ranks_assemble_the_logical_tensor(name: str, data_ranks: int, tensor_ranks: int) -> None:
    shape = SHARDS[name]["full_shape"]
    full = torch.arange(1.0, 1.0 + math.prod(shape)).view(shape)
    info = ShardInfo(init=no_init, size=tensor_ranks, **SHARDS[name])
    result, count = torch.zeros(info.logical_shape), torch.zeros(info.logical_shape)
    for rank in range(tensor_ranks):
        info = ShardInfo(init=no_init, rank=rank, size=tensor_ranks, **SHARDS[name])
        local = info.cut(full).reshape(-1)
        size = -(-local.numel() // data_ranks)
        for start in range(0, local.numel(), size):
            for piece in shard_pieces(info, start, local[start : start + size]):
                where = tuple(slice(o, o + n) for o, n in zip(piece.offsets, piece.tensor.shape, strict=True))
                result[where] = piece.tensor
                count[where] += 1
    torch.testing.assert_close(result, full[: info.logical_shape[0]])
    copies = 1 if info.is_sharded else tensor_ranks
    assert bool((count == copies).all())


def test_writing_into_pieces_writes_the_flat_memory() -> None:
    info = ShardInfo((4, 6), no_init, dim=1, parts=(2, 4), rank=1, size=2)
    flat = torch.zeros(12)
    for piece in shard_pieces(info, 0, flat):
        piece.tensor.fill_(1.0)
    assert bool((flat == 1).all())
