"""The masks of `megatron.mpu.random_bits` inside kernels, bit for bit: the same integers, unsigned here."""

from __future__ import annotations

import triton
import triton.language as tl

from megatron.mpu.random_bits import FIRST_FACTOR, SECOND_FACTOR, SHIFTS

_FIRST_FACTOR = tl.constexpr(FIRST_FACTOR % 2**32)
_SECOND_FACTOR = tl.constexpr(SECOND_FACTOR % 2**32)
_SHIFT_0, _SHIFT_1, _SHIFT_2 = (tl.constexpr(shift) for shift in SHIFTS)


@triton.jit
def column_words(columns: tl.tensor) -> tl.tensor:
    """`numbered_words` of these numbers, as uint32."""
    words = columns.to(tl.uint32)
    words ^= words >> _SHIFT_0
    words *= _FIRST_FACTOR
    words ^= words >> _SHIFT_1
    words *= _SECOND_FACTOR
    return words ^ (words >> _SHIFT_2)


@triton.jit
def is_kept(rows: tl.tensor, columns: tl.tensor, first_kept: tl.tensor) -> tl.tensor:
    """What `dropped` does not drop, for words of rows, int32, and those of columns; first_kept: that of the probability."""
    words = rows.to(tl.uint32, bitcast=True) ^ columns
    words *= _FIRST_FACTOR
    words ^= words >> _SHIFT_1
    words *= _SECOND_FACTOR
    return words.to(tl.int32, bitcast=True) >= first_kept
