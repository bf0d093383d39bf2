"""Blends: the greedy rule exactly, however it is computed."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.data import blendable_dataset
from megatron.data.blendable_dataset import blend_order, build_blendable_dataset


def order_by_loop(weights, count):
    shares = np.asarray(weights, dtype=np.float64)
    shares = shares / np.sum(shares)
    taken = np.zeros(len(shares))
    order = []
    for k in range(count):
        order.append(int((shares * max(k, 1) - taken).argmax()))
        taken[order[-1]] += 1
    return order


def numbers_by_loop(order):
    taken = {}
    numbers = []
    for dataset in order:
        numbers.append(taken.get(dataset, 0))
        taken[dataset] = numbers[-1] + 1
    return numbers


# Few different numbers make ties, small ones make datasets that wait for thousands of steps.
WEIGHTS = st.one_of(
    st.lists(st.integers(1, 5), min_size=1, max_size=30),
    st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=30),
    st.lists(st.sampled_from([1e-9, 1e-4, 0.125, 0.3, 1.0]), min_size=1, max_size=12),
)


@pytest.mark.parametrize("worth_compiling", [0, 10**9])
@settings(deadline=None, max_examples=40)
@given(weights=WEIGHTS, count=st.integers(1, 3000))
def test_the_order_is_that_of_the_rule_translated_or_not(worth_compiling, weights, count):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blendable_dataset, "WORTH_COMPILING", worth_compiling)
        chosen, numbers = blend_order(weights, count)
    expected = order_by_loop(weights, count)
    assert chosen.tolist() == expected
    assert numbers.tolist() == numbers_by_loop(expected)
    assert (chosen.dtype, numbers.dtype) == (np.int16, np.int64)


def test_a_long_blend_equals_the_rule_too():
    weights = [0.5, 1e-4, 0.2, 3e-3, 0.2968, 1e-4]
    assert blend_order(weights, 40_000)[0].tolist() == order_by_loop(weights, 40_000)


def test_known_order():
    assert blend_order([1, 1], 4)[0].tolist() == [0, 1, 0, 1]
    chosen, numbers = blend_order([0.25, 0.75], 8)
    assert chosen.tolist() == [1, 0, 1, 1, 0, 1, 1, 1]  # step 4 is a tie
    assert numbers.tolist() == [0, 0, 1, 2, 1, 3, 4, 5]


def test_millions_of_samples_take_seconds():
    started = time.perf_counter()
    chosen, _ = blend_order(np.random.default_rng(0).random(22), 3_000_000)
    assert time.perf_counter() - started < 20  # about 1 s where nothing else runs
    assert len(chosen) == 3_000_000


class Numbers:
    """Sample i is [base + i]."""

    def __init__(self, base):
        self.base = base

    def __len__(self):
        return 1000

    def __getitem__(self, i):
        return np.array([self.base + i])

    def source_of(self, i):
        return f"numbers from {self.base}"


def test_a_blend_takes_from_its_datasets_and_caches_its_order(tmp_path, monkeypatch):
    def build(weights, num_samples):
        datasets = [Numbers(0), Numbers(5000)]
        return build_blendable_dataset(datasets, weights, num_samples=num_samples, part="train", beside=tmp_path / "a")

    blend = build([0.25, 0.75], 8)
    assert len(blend) == 8
    assert [int(blend[i][0]) for i in range(8)] == [5000, 0, 5001, 5002, 1, 5003, 5004, 5005]
    assert blend.source_of(1) == "numbers from 0"
    with pytest.raises(IndexError):
        blend[8]
    assert len(list(tmp_path.glob("a_train_blend_8ns_*.npy"))) == 2
    build([0.26, 0.74], 8)
    build([0.25, 0.75], 9)
    assert len(list(tmp_path.glob("*.npy"))) == 6
    monkeypatch.setattr(blendable_dataset, "blend_order", None)
    assert int(build([0.25, 0.75], 8)[7][0]) == 5005


@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=6), st.integers(1, 3000))
@settings(deadline=None, max_examples=30)
def test_no_dataset_is_asked_for_more_than_its_share_rounded_up(weights, count):
    counts = np.bincount(blend_order(weights, count)[0], minlength=len(weights))
    shares = np.asarray(weights) / sum(weights) * count
    assert (counts <= np.ceil(shares * 1.005)).all()
