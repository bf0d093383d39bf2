"""Packed samples for next-token prediction: `dataset[i]` is `seq_length + 1` consecutive tokens, whatever documents they cross."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from megatron.data.index_maps import load_or_build_index_maps
from megatron.data.indexed_dataset import IndexedDataset
from megatron.data.mapped_dataset import MappedDataset


class SampleDataset(Protocol):
    """What loaders and blends need of a dataset."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> NDArray[np.int64]:
        """Sample i: int64 [seq_length + 1]. Raises IndexError outside the dataset."""
        ...

    def source_of(self, i: int) -> str:
        """Where sample i comes from, for messages."""
        ...


class GPTDataset(MappedDataset):
    """The samples of some documents of an indexed dataset, in the order given by index maps (see index_maps.py)."""

    def read(self, sample: int) -> NDArray[np.int64]:
        """The sample of this number before shuffling: int64 [seq_length + 1]."""
        (position, offset), (last_position, last_offset) = self.maps["samples"][sample : sample + 2].tolist()
        tokens = np.empty(self.seq_length + 1, dtype=np.int64)
        filled = 0
        while position < last_position:
            piece = self.dataset.get(int(self.maps["documents"][position]), offset)
            tokens[filled : filled + len(piece)] = piece
            filled += len(piece)
            position, offset = position + 1, 0
        length = last_offset + 1 - offset
        tokens[filled:] = self.dataset.get(int(self.maps["documents"][position]), offset, length)
        return tokens


def build_gpt_dataset(
    dataset: IndexedDataset, documents: range, *, part: str, seq_length: int, num_samples: int, seed: int
) -> GPTDataset:
    """At least `num_samples` packed samples of `documents`, repeating them for as many epochs as that takes.

    `part` ("train", "valid_2", ...) only names the cache files. Raises DataError when the documents hold no tokens.
    """
    maps = load_or_build_index_maps(
        dataset, documents, part=part, seq_length=seq_length, num_samples=num_samples, seed=seed
    )
    return GPTDataset(dataset, maps, seq_length=seq_length)
