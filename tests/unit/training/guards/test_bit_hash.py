"""The hash sees every bit of a tensor, and nothing but its bits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from megatron.training.guards import bit_hash as module
from megatron.training.guards.bit_hash import bit_hash

INTEGERS = {
    torch.float32: torch.int32,
    torch.bfloat16: torch.int16,
    torch.float16: torch.int16,
    torch.float64: torch.int64,
}
BITS = {torch.float32: 32, torch.bfloat16: 16, torch.float16: 16, torch.float64: 64}
each_type = pytest.mark.parametrize("dtype", INTEGERS, ids=str)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors of a test have several parts, as large ones have."""
    monkeypatch.setattr(module, "WORDS", 16)


def flipped(tensor: Tensor, place: int, bit: int) -> Tensor:
    integers = tensor.view(INTEGERS[tensor.dtype]).clone()
    # The sign bit as the negative number that it is in two's complement.
    mask = -(2**bit) if bit == BITS[tensor.dtype] - 1 else 2**bit
    integers[place] ^= mask
    return integers.view(tensor.dtype)


def value(tensor: Tensor) -> int:
    return int(bit_hash(tensor))


@each_type
@pytest.mark.parametrize("length", [1, 3, 67])
def test_every_single_flipped_bit_is_seen(dtype: torch.dtype, length: int) -> None:
    tensor = torch.randn(length, generator=torch.Generator().manual_seed(0)).to(dtype)
    hashes = {value(flipped(tensor, place, bit)) for place in range(length) for bit in range(BITS[dtype])}
    assert len(hashes) == length * BITS[dtype]
    assert value(tensor) not in hashes


@each_type
def test_every_pair_of_flipped_signs_is_seen(dtype: torch.dtype) -> None:
    tensor, sign = torch.zeros(70, dtype=dtype), BITS[dtype] - 1
    pairs = {value(flipped(flipped(tensor, a, sign), b, sign)) for a in range(70) for b in range(a)}
    assert len(pairs) == 70 * 69 // 2
    assert value(tensor) not in pairs


@each_type
def test_zeros_and_numbers_that_are_none_are_told_by_their_bits(dtype: torch.dtype) -> None:
    zeros, nans = torch.zeros(5, dtype=dtype), torch.full((5,), float("nan"), dtype=dtype)
    assert value(zeros) != value(-zeros)
    assert value(nans) == value(nans.clone())
    assert value(nans) != value(flipped(nans, 2, 0))


def test_places_count_and_the_storage_does_not() -> None:
    tensor = torch.randn(6, 16).to(torch.bfloat16)
    assert value(tensor) != value(tensor.flip(0))
    shifted = torch.empty(1 + tensor.numel(), dtype=tensor.dtype)[1:].view_as(tensor)
    assert value(shifted.copy_(tensor)) == value(tensor)
    transposed = tensor.t().contiguous().t()
    assert value(transposed) == value(tensor)
