"""Several datasets mixed in given proportions: sample k comes from the dataset that is furthest behind its share.

The rule, with weights w that sum to 1: sample k is taken from the dataset i with the largest w_i * max(k, 1) - taken_i, where taken_i
counts the samples i has given so far (ties: the lowest i). It is GPT-NeoX's rule, so the same weights give the same blend.

Every step of the rule depends on the one before, which is slow in Python. `blend_order` therefore runs many stretches of the sequence
side by side, each from a guess of where it begins. Two runs of the rule that begin differently soon become equal and stay so,
hence nearly all guesses are right by the time they matter; where one is not, the stretch is corrected step by step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from megatron.data.gpt_dataset import SampleDataset
from megatron.data.index_cache import StoredArrays, load_or_build

CACHE_VERSION = 1  # to be raised when the same weights give another order
STRETCHES = 256
WARM_UP_STEPS = 512  # steps a guess is given to become right


class BlendableDataset:
    """`len(order["dataset"])` samples: sample k is number order["sample"][k] of dataset order["dataset"][k]."""

    def __init__(self, datasets: Sequence[SampleDataset], order: StoredArrays) -> None:
        self.datasets = tuple(datasets)
        self.order = order

    def __len__(self) -> int:
        return len(self.order["dataset"])

    def __getitem__(self, i: int) -> NDArray[np.int64]:
        """Sample i: int64 [seq_length + 1]. Raises IndexError outside the dataset."""
        dataset, sample = self._place(i)
        return dataset[sample]

    def source_of(self, i: int) -> str:
        """The path of the dataset that sample i comes from."""
        dataset, sample = self._place(i)
        return dataset.source_of(sample)

    def _place(self, i: int) -> tuple[SampleDataset, int]:
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of a blend of {len(self)}")
        return self.datasets[int(self.order["dataset"][i])], int(self.order["sample"][i])


def build_blendable_dataset(
    datasets: Sequence[SampleDataset], weights: Sequence[float], *, num_samples: int, part: str, beside: Path
) -> BlendableDataset:
    """A blend of `num_samples` samples; `weights` are positive, in any unit. Its order is cached beside the file `beside`."""
    key = hashlib.blake2b(repr((CACHE_VERSION, num_samples, list(weights))).encode(), digest_size=8).hexdigest()
    name = f"{beside.name}_{part}_blend_{num_samples}ns_{key}"

    def build() -> dict[str, NDArray[np.generic]]:
        order = blend_order(weights, num_samples)
        return {"dataset": order, "sample": samples_taken_before(order, len(datasets))}

    files = {"dataset": f"{name}_dataset_index", "sample": f"{name}_dataset_sample_index"}
    return BlendableDataset(datasets, load_or_build(files, build, beside=beside))


def samples_taken_before(order: NDArray[np.int16], datasets: int) -> NDArray[np.int64]:
    """For each step of `order`, how many samples its dataset has given before: int64 [steps]."""
    taken = np.empty(len(order), dtype=np.int64)
    for dataset in range(datasets):
        mine = np.flatnonzero(order == dataset)
        taken[mine] = np.arange(len(mine))
    return taken


def blend_order(weights: Sequence[float], count: int) -> NDArray[np.int16]:
    """Which dataset gives sample k, for k = 0 .. count - 1, by the rule at the head of this file: int16 [count]."""
    shares = np.asarray(weights, dtype=np.float64)
    shares = shares / np.sum(shares)
    stretches = min(max(count // (2 * WARM_UP_STEPS), 1), STRETCHES)
    steps = -(-count // stretches)
    begins = np.arange(stretches, dtype=np.int64) * steps
    guesses = _states_at(shares, begins)
    ends, choices = _advance(shares, begins, guesses, steps)
    order = np.ascontiguousarray(choices.T)  # [stretches, steps]
    for stretch in range(1, stretches):
        difference = ends[stretch - 1] - guesses[stretch]
        _correct(shares, int(begins[stretch]), ends[stretch - 1].copy(), difference, order[stretch])
        ends[stretch] += difference
    return order.reshape(-1)[:count]


def _states_at(shares: NDArray[np.float64], begins: NDArray[np.int64]) -> NDArray[np.int64]:
    """Guess what the datasets have given before steps `begins` [m]: int64 [m, datasets], rows summing to `begins`."""
    early = np.maximum(begins - WARM_UP_STEPS, 0)
    exact = shares * early[:, None]
    taken = np.floor(exact).astype(np.int64)
    missing = early - taken.sum(axis=1)
    # Largest remainder first: rank the datasets of each row by what rounding down took from them.
    ranks = np.argsort(np.argsort(taken - exact, axis=1, kind="stable"), axis=1)
    taken += ranks < missing[:, None]
    taken, _ = _advance(shares, early, taken, WARM_UP_STEPS)
    taken[0] = 0  # the first stretch begins at step 0, of which everything is known
    return taken


def _advance(
    shares: NDArray[np.float64], begins: NDArray[np.int64], taken: NDArray[np.int64], steps: int
) -> tuple[NDArray[np.int64], NDArray[np.int16]]:
    """Apply the rule `steps` times in each row: what has been given at the end, and the choices, int16 [steps, m]."""
    rows = np.arange(len(begins))
    given = taken.astype(np.float64)
    chosen = np.empty((steps, len(begins)), dtype=np.int16)
    for step in range(steps):
        behind = shares * np.maximum(begins + step, 1)[:, None] - given
        choice = behind.argmax(axis=1)
        chosen[step] = choice
        given[rows, choice] += 1
    return given.astype(np.int64), chosen


def _correct(
    shares: NDArray[np.float64],
    begin: int,
    taken: NDArray[np.int64],
    difference: NDArray[np.int64],
    order: NDArray[np.int16],
) -> None:
    """Rewrite `order` from the true state `taken`, until it is equal to the run that began `difference` away from it.

    `difference` ends as what the true state has given more than that run at the end of the stretch.
    """
    step = 0
    while difference.any() and step < len(order):
        choice = int((shares * max(begin + step, 1) - taken).argmax())
        taken[choice] += 1
        difference[choice] += 1
        difference[order[step]] -= 1
        order[step] = choice
        step += 1
