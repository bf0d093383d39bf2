"""Shuffling: the same order as numpy's, and the same random numbers afterwards."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.data.maps import shuffle as shuffle_module
from megatron.data.maps.shuffle import BLOCK, LARGEST, SMALLEST, shuffle


def assert_equals_numpy(count, seed, dtype=np.int32):
    ours, theirs = np.arange(count, dtype=dtype), np.arange(count, dtype=dtype)
    our_random, their_random = np.random.RandomState(seed), np.random.RandomState(seed)
    for _ in range(2):  # the second time from the state that the first has left
        shuffle(ours, our_random)
        their_random.shuffle(theirs)
        np.testing.assert_array_equal(ours, theirs)
    assert our_random.random_sample() == their_random.random_sample()


@settings(deadline=None, max_examples=60)
@given(
    count=st.one_of(
        st.integers(1, 200),
        st.integers(BLOCK - 3, BLOCK + 3),
        st.integers(1, 5 * BLOCK),
        st.sampled_from([2**power + more for power in (1, 7, 12, 13, 14) for more in (-1, 0, 1, 2)]),
    ),
    seed=st.integers(0, 2**32 - 1),
)
def test_in_blocks_equals_numpy(count, seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shuffle_module, "SMALLEST", 1)
        assert_equals_numpy(count, seed)


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64])
def test_all_types_of_numbers_equal_numpy(dtype, monkeypatch):
    monkeypatch.setattr(shuffle_module, "SMALLEST", 1)
    assert_equals_numpy(300_001, 7, dtype)


@pytest.mark.parametrize(
    ("count", "in_blocks"), [(SMALLEST - 1, False), (SMALLEST, True), (LARGEST, True), (LARGEST + 1, False)]
)
def test_what_is_too_small_to_gain_or_too_large_for_32_bits_is_left_to_numpy(count, in_blocks, monkeypatch):
    """The arrays are virtual: nobody may shuffle them."""
    shuffled = []
    monkeypatch.setattr(shuffle_module, "_shuffle_in_blocks", lambda values, random: shuffled.append("blocks"))
    random = SimpleNamespace(shuffle=lambda values: shuffled.append("numpy"))
    shuffle(np.broadcast_to(np.int32(0), count), random)
    assert shuffled == ["blocks" if in_blocks else "numpy"]
