"""Random bits that are a function of what they are for, without a generator and so without a state.

What dropout draws depends on seed, step, sample, layer and position alone: no layout, no order of computation and no checkpoint changes
it. A word is 32 random bits, held as int32; integers wrap around modulo 2^32, with the same result on CPU and GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from megatron.mpu.shard import stable_seed

# "lowbias32", found by Chris Wellons' search for hash functions: https://nullprogram.com/blog/2018/07/31/
SHIFTS = 16, 15, 16
FIRST_FACTOR, SECOND_FACTOR = 0x7FEB352D, 0x846CA68B - 2**32


def sample_keys(samples: Sequence[int], *, seed: int, step: int) -> Tensor:
    """int64 [b] on the CPU, 63 random bits for each of these samples (their numbers in the run) in step number `step`."""
    return torch.tensor([stable_seed("sample", seed, step, sample) for sample in samples], dtype=torch.int64)


@lru_cache(maxsize=4096)
def place_word(*names: object) -> int:
    """A word for a place in the model, as a Python number."""
    return (stable_seed("place", *names) & 0xFFFFFFFF) - 2**31


def mixed(words: Tensor) -> Tensor:
    """Each word replaced by another one that depends on all its bits, and different ones by different ones. A new tensor."""
    words = words ^ _shifted(words, SHIFTS[0])
    words *= FIRST_FACTOR
    words ^= _shifted(words, SHIFTS[1])
    words *= SECOND_FACTOR
    return words.bitwise_xor_(_shifted(words, SHIFTS[2]))


@lru_cache(maxsize=16)
def numbered_words(begin: int, count: int, device: torch.device) -> Tensor:
    """int32 [count]: a word for each of the numbers `begin`, `begin + 1`, ..., below 2^31; no two are equal.

    An ordinary tensor, kept for the next call, even when it is first needed in inference mode.
    """
    with torch.inference_mode(False), torch.no_grad():
        return mixed(torch.arange(begin, begin + count, dtype=torch.int32, device=device))


def position_words(keys: Tensor, begin: int, count: int) -> Tensor:
    """int32 [s, b]: a word for each of `count` positions from `begin` in the samples with these keys, int64 [b]."""
    positions = numbered_words(begin, count, keys.device).unsqueeze(1)
    return mixed(mixed(positions ^ keys.to(torch.int32)) ^ (keys >> 32).to(torch.int32))


def dropped(rows: Tensor, columns: Tensor, probability: float) -> Tensor:
    """bool [..., c], true with `probability` (rounded to 2^-32): for each word of `rows` [...] with each one of `columns` [c].

    The words of rows and of columns must be mixed, and those of columns different. Then the middle of `mixed` is enough here: its ends
    serve words that are not mixed, and bits that no comparison sees.
    """
    words = rows.unsqueeze(-1) ^ columns
    words *= FIRST_FACTOR
    words ^= _shifted(words, SHIFTS[1])
    words *= SECOND_FACTOR
    return words < first_kept(probability)


def first_kept(probability: float) -> int:
    """The lowest word, as int32, that `dropped` keeps: of the 2^32 words, the lowest ones are dropped."""
    return min(round(probability * 2**32), 2**32 - 1) - 2**31


def _shifted(words: Tensor, bits: int) -> Tensor:
    """The words moved down, with zeros above: torch moves the sign along."""
    return (words >> bits).bitwise_and_(2 ** (32 - bits) - 1)
