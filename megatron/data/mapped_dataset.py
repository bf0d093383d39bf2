"""What datasets of stored index maps share: their length, the order of their samples, and where they come from."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from megatron.data.index_cache import StoredArrays
from megatron.data.indexed_dataset import IndexedDataset


class MappedDataset(ABC):
    """The samples of some documents of an indexed dataset, in the order of the maps' `shuffle`. Samples have seq_length + 1 tokens."""

    def __init__(self, dataset: IndexedDataset, maps: StoredArrays, *, seq_length: int) -> None:
        self.dataset = dataset
        self.maps = maps
        self.seq_length = seq_length

    def __len__(self) -> int:
        return len(self.maps["shuffle"])

    def __getitem__(self, i: int) -> NDArray[np.int64]:
        """Sample i: int64 [seq_length + 1]. Raises IndexError outside the dataset."""
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of a dataset of {len(self)}")
        return self.read(int(self.maps["shuffle"][i]))

    @abstractmethod
    def read(self, sample: int) -> NDArray[np.int64]:
        """The sample of this number before shuffling: int64 [seq_length + 1]."""

    def source_of(self, i: int) -> str:
        """The dataset's path."""
        return str(self.dataset.prefix)
