"""Blends: the greedy rule exactly, however it is computed."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.data import blendable_dataset
from megatron.data.blendable_dataset import blend_order, build_blendable_dataset, samples_taken_before


def order_by_loop(weights, count):
    shares = np.asarray(weights, dtype=np.float64)
    shares = shares / np.sum(shares)
    taken = np.zeros(len(shares))
    order = []
    for k in range(count):
        order.append(int((shares * max(k, 1) - taken).argmax()))
        taken[order[-1]] += 1
    return order


@settings(deadline=None, max_examples=40)
@given(st.lists(st.one_of(st.integers(1, 5), st.floats(1e-6, 1.0)), min_size=1, max_size=30), st.integers(1, 6000))
def test_side_by_side_equals_one_by_one(weights, count):
    assert blend_order(weights, count).tolist() == order_by_loop(weights, count)


def test_wrong_guesses_are_corrected(monkeypatch):
    """With guesses as bad as can be, the result is the same; so correctness rests on no guess."""
    weights = [0.5, 1e-4, 0.2, 3e-3, 0.2968, 1e-4]
    expected = order_by_loop(weights, 20_000)

    def bad_guess(shares, begins):
        taken = np.zeros((len(begins), len(shares)), dtype=np.int64)
        taken[:, -1] = begins
        return taken

    monkeypatch.setattr(blendable_dataset, "_states_at", bad_guess)
    assert blend_order(weights, 20_000).tolist() == expected


def test_known_order():
    assert blend_order([1, 1], 4).tolist() == [0, 1, 0, 1]
    assert blend_order([0.25, 0.75], 8).tolist() == [1, 0, 1, 1, 0, 1, 1, 1]  # step 4 is a tie


def test_a_million_samples_take_seconds():
    started = time.perf_counter()
    order = blend_order(np.random.default_rng(0).random(22), 1_000_000)
    assert time.perf_counter() - started < 5  # about 0.1 s where nothing else runs
    assert len(order) == 1_000_000


def test_each_dataset_gives_its_samples_in_order():
    assert samples_taken_before(np.array([1, 0, 1, 1, 0], np.int16), 2).tolist() == [0, 0, 1, 2, 1]


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
    counts = np.bincount(blend_order(weights, count), minlength=len(weights))
    shares = np.asarray(weights) / sum(weights) * count
    assert (counts <= np.ceil(shares * 1.005)).all()
