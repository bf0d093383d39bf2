"""What datasets of stored index maps share: their length, the order of their samples, and where they come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from megatron.data.indexed_dataset import IndexedDataset
from megatron.data.maps.index_cache import StoredArrays
from megatron.data.piece import Piece


class MappedDataset(ABC):
    """The samples of some documents of an indexed dataset, in the order of the maps' `shuffle`. Samples have seq_length + 1 tokens.

    labels: the labels of the same documents (see labels.py); every sample then has a second row, the labels of its tokens.
    """

    def __init__(
        self, dataset: IndexedDataset, maps: StoredArrays, *, seq_length: int, labels: IndexedDataset | None = None
    ) -> None:
        self.dataset = dataset
        self.labels = labels
        self.maps = maps
        self.seq_length = seq_length

    def __len__(self) -> int:
        return len(self.maps["shuffle"])

    def __getitem__(self, i: int) -> NDArray[np.int64]:
        """Sample i: int64 [seq_length + 1], with labels [2, seq_length + 1]. Raises IndexError outside the dataset."""
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of a dataset of {len(self)}")
        number = int(self.maps["shuffle"][i])
        text = self.read(number, self.dataset)
        return text if self.labels is None else np.stack([text, self.read(number, self.labels)])

    @abstractmethod
    def read(self, sample: int, dataset: IndexedDataset) -> NDArray[np.int64]:
        """The sample of this number before shuffling, of the text or of its labels: int64 [seq_length + 1]."""

    def pieces_of(self, i: int) -> tuple[Piece, ...]:
        """Which parts of documents sample i is made of, in their order; padding is none. Raises IndexError outside the dataset."""
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of a dataset of {len(self)}")
        return tuple(self.pieces(int(self.maps["shuffle"][i])))

    @abstractmethod
    def pieces(self, sample: int) -> Iterator[Piece]:
        """The parts of documents in the sample of this number before shuffling."""

    @abstractmethod
    def samples_at(self, position: int) -> range:
        """The numbers before shuffling of the samples that the document at this position of the map `documents` is in."""

    @abstractmethod
    def tokens_in(self, samples: range, length: int) -> int:
        """Tokens of documents in the first `length` + 1 places of these samples (their numbers in this dataset), without reading one.

        A token that ends a sample and begins another counts once.
        """

    def source_of(self, i: int) -> str:
        """The dataset's path."""
        return str(self.dataset.prefix)
