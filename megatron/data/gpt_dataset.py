"""Packed samples for next-token prediction: `dataset[i]` is `seq_length + 1` consecutive tokens, whatever documents they cross."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from megatron.data.indexed_dataset import IndexedDataset
from megatron.data.mapped_dataset import MappedDataset
from megatron.data.maps.index_maps import load_or_build_index_maps
from megatron.data.piece import Piece


class SampleDataset(Protocol):
    """What loaders and blends need of a dataset."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> NDArray[np.int64]:
        """Sample i: int64 [seq_length + 1], or [2, seq_length + 1] with labels. Raises IndexError outside the dataset."""
        ...

    def source_of(self, i: int) -> str:
        """Where sample i comes from, for messages."""
        ...

    def pieces_of(self, i: int) -> tuple[Piece, ...]:
        """Which parts of documents sample i is made of, in their order."""
        ...


class GPTDataset(MappedDataset):
    """The samples of some documents of an indexed dataset, in the order given by index maps (see maps/index_maps.py)."""

    def read(self, sample: int, dataset: IndexedDataset) -> NDArray[np.int64]:
        """The sample of this number before shuffling, of the text or of its labels: int64 [seq_length + 1]."""
        (position, offset), (last_position, last_offset) = self.maps["samples"][sample : sample + 2].tolist()
        tokens = np.empty(self.seq_length + 1, dtype=np.int64)
        filled = 0
        while position < last_position:
            piece = dataset.get(int(self.maps["documents"][position]), offset)
            tokens[filled : filled + len(piece)] = piece
            filled += len(piece)
            position, offset = position + 1, 0
        length = last_offset + 1 - offset
        tokens[filled:] = dataset.get(int(self.maps["documents"][position]), offset, length)
        return tokens

    def pieces(self, sample: int) -> Iterator[Piece]:
        """The parts of documents in the sample of this number before shuffling."""
        (position, offset), (last_position, last_offset) = self.maps["samples"][sample : sample + 2].tolist()
        for place in range(position, last_position + 1):
            document = int(self.maps["documents"][place])
            end = last_offset + 1 if place == last_position else int(self.dataset.sizes[document])
            if end > offset:  # a document may be empty
                yield Piece(self.dataset.prefix, document, offset, end - offset)
            offset = 0

    def samples_at(self, position: int) -> range:
        """The numbers before shuffling of the samples that the document at this position of the map `documents` is in."""
        starts = self.maps["samples"][:, 0]  # of samples, and of what is left behind the last one
        first, end = bisect_left(starts, position) - 1, bisect_right(starts, position)
        return range(max(first, 0), min(end, len(self)))

    def tokens_in(self, samples: range, length: int) -> int:
        """`length` for each sample, as the last token of one is the first of another."""
        return len(samples) * length


def build_gpt_dataset(
    dataset: IndexedDataset,
    documents: range,
    *,
    part: str,
    seq_length: int,
    num_samples: int,
    seed: int,
    labels: IndexedDataset | None = None,
) -> GPTDataset:
    """At least `num_samples` packed samples of `documents`, repeating them for as many epochs as that takes.

    `part` ("train", "valid_2", ...) only names the cache files; `labels` are those of `dataset` (see labels.py). Raises DataError when
    the documents hold no tokens.
    """
    maps = load_or_build_index_maps(
        dataset, documents, part=part, seq_length=seq_length, num_samples=num_samples, seed=seed
    )
    return GPTDataset(dataset, maps, seq_length=seq_length, labels=labels)
