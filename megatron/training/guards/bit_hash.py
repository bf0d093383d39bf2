"""A 64-bit hash of the bits of a tensor, computed where the tensor is.

The bits are read as words w_i of 32 bits, and the hash is the sum of w_i * r_i modulo 2^64 with fixed random odd 64-bit numbers r_i
(multilinear hashing; Lemire and Kaser, "Strongly universal string hashing is fast", 2014). A flipped bit k of word i changes it by
2^k * r_i, which is never 0 for k < 32; two tensors that differ in more have the same hash with a probability of about 2^-32.
-0.0 and 0.0 differ, and so do NaNs with different bits, since nothing is read as a number.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

WORDS = 2**20
"""Words hashed at a time: what is in memory beside the tensor is a few times 8 bytes for each."""

CHAIN = 0x2545F4914F6CDD1D
"""Odd, so that multiplying by it loses nothing: by it a part of a tensor is told from the same part elsewhere."""

SEED = 20260


def bit_hash(tensor: Tensor) -> Tensor:
    """The hash of a tensor's bits, in the order of its elements: a scalar int64 on its device, without waiting for the device."""
    flat = tensor.detach().reshape(-1).view(_bits_type(tensor))
    result = torch.zeros((), dtype=torch.int64, device=tensor.device)
    for part in flat.split(WORDS * 4 // flat.element_size()):
        words = _words(part).to(torch.int64)
        result = result * CHAIN + (words * _multipliers(tensor.device, WORDS)[: words.numel()]).sum()
    return result


def _bits_type(tensor: Tensor) -> torch.dtype:
    return {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int32}[tensor.element_size()]


def _words(bits: Tensor) -> Tensor:
    """Whole numbers of 1, 2 or 4 bytes, together as int32; zeros fill up the last word."""
    if bits.dtype == torch.int32:
        return bits
    missing = -bits.numel() % (4 // bits.element_size())
    # A copy, because parameters lie in larger buffers where four bytes need not begin at a multiple of four.
    return F.pad(bits, (0, missing)).clone().view(torch.int32)


@cache
def _multipliers(device: torch.device, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(SEED)
    return (torch.randint(-(2**63), 2**63 - 1, (count,), generator=generator) | 1).to(device)
