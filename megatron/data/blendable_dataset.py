"""Several datasets mixed in given proportions: sample k comes from the dataset that is furthest behind its share.

The rule, with weights w that sum to 1: sample k is taken from the dataset i with the largest w_i * max(k, 1) - taken_i, where taken_i
counts the samples i has given so far (ties: the lowest i). It is GPT-NeoX's rule, so the same weights give the same blend.

Every step of the rule depends on the one before, so it is a loop; for all but short blends it is translated (maps/compiled.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from megatron.data.gpt_dataset import SampleDataset
from megatron.data.maps.compiled import compiled
from megatron.data.maps.index_cache import StoredArrays, content_key, load_or_build
from megatron.data.piece import Piece

CACHE_VERSION = 1  # to be raised when the same weights give another order
WORTH_COMPILING = 20_000  # samples; fewer are blended sooner than the loop is translated


class BlendableDataset:
    """`len(order["dataset"])` samples: sample k is number order["sample"][k] of dataset order["dataset"][k]."""

    def __init__(self, datasets: Sequence[SampleDataset], order: StoredArrays) -> None:
        self.datasets = tuple(datasets)
        self.order = order

    def __len__(self) -> int:
        return len(self.order["dataset"])

    def __getitem__(self, i: int) -> NDArray[np.int64]:
        """Sample i: int64 [seq_length + 1], or [2, seq_length + 1] with labels. Raises IndexError outside the dataset."""
        dataset, sample = self._place(i)
        return dataset[sample]

    def source_of(self, i: int) -> str:
        """The path of the dataset that sample i comes from."""
        dataset, sample = self._place(i)
        return dataset.source_of(sample)

    def pieces_of(self, i: int) -> tuple[Piece, ...]:
        """Which parts of documents sample i is made of, in their order. Raises IndexError outside the dataset."""
        dataset, sample = self._place(i)
        return dataset.pieces_of(sample)

    def _place(self, i: int) -> tuple[SampleDataset, int]:
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of a blend of {len(self)}")
        return self.datasets[int(self.order["dataset"][i])], int(self.order["sample"][i])


def build_blendable_dataset(
    datasets: Sequence[SampleDataset], weights: Sequence[float], *, num_samples: int, part: str, beside: Path
) -> BlendableDataset:
    """A blend of `num_samples` samples; `weights` are positive, in any unit. Its order is cached beside the file `beside`."""
    key = content_key(CACHE_VERSION, num_samples, list(weights))
    name = f"{beside.name}_{part}_blend_{num_samples}ns_{key}"

    def build() -> dict[str, NDArray[np.generic]]:
        chosen, numbers = blend_order(weights, num_samples)
        return {"dataset": chosen, "sample": numbers}

    files = {"dataset": f"{name}_dataset_index", "sample": f"{name}_dataset_sample_index"}
    return BlendableDataset(datasets, load_or_build(files, build, beside=beside))


def blend_order(weights: Sequence[float], count: int) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    """For k = 0 .. count - 1 which dataset gives sample k, by the rule at the head of this file, and which of its own samples that is.

    Both [count]. At most 32,767 datasets.
    """
    shares = np.asarray(weights, dtype=np.float64)
    shares = shares / np.sum(shares)
    chosen, numbers = np.empty(count, dtype=np.int16), np.empty(count, dtype=np.int64)
    follow = compiled(_follow_rule) if count > WORTH_COMPILING else _follow_rule
    follow(shares, np.zeros(len(shares)), chosen, numbers)
    return chosen, numbers


def _follow_rule(
    shares: NDArray[np.float64], taken: NDArray[np.float64], chosen: NDArray[np.int16], numbers: NDArray[np.int64]
) -> None:
    """Fill `chosen` and `numbers` [count] from the first sample on; `taken` [datasets] begins with zeros."""
    for step in range(len(chosen)):
        due = float(max(step, 1))
        choice = 0
        furthest = shares[0] * due - taken[0]
        for dataset in range(1, len(shares)):
            behind = shares[dataset] * due - taken[dataset]
            if behind > furthest:
                choice, furthest = dataset, behind
        chosen[step] = choice
        numbers[step] = int(taken[choice])
        taken[choice] += 1
