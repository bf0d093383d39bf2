"""Samples of whole documents, padded: `dataset[i]` is one document, or several, from the beginning of a sample on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from megatron.data.batch import PADDING
from megatron.data.document_maps import Packing, load_or_build_document_maps
from megatron.data.indexed_dataset import IndexedDataset
from megatron.data.mapped_dataset import MappedDataset


class DocumentDataset(MappedDataset):
    """The samples of some documents of an indexed dataset, in the order given by document maps (see document_maps.py)."""

    def read(self, sample: int) -> NDArray[np.int64]:
        """The sample of this number before shuffling: int64 [seq_length + 1], PADDING behind its documents."""
        begin, end = self.maps["samples"][sample : sample + 2].tolist()
        tokens = np.full(self.seq_length + 1, PADDING, dtype=np.int64)
        filled = 0
        for document in self.maps["documents"][begin:end].tolist():
            piece = self.dataset.get(document)[: len(tokens) - filled]
            tokens[filled : filled + len(piece)] = piece
            filled += len(piece)
        return tokens


def build_document_dataset(
    dataset: IndexedDataset, documents: range, packing: Packing, *, part: str, num_samples: int, seed: int
) -> DocumentDataset:
    """`num_samples` samples of `documents`, repeating them as often as that takes.

    `part` ("train", "valid_2", ...) only names the cache files. Raises DataError when no document can be used.
    """
    maps = load_or_build_document_maps(dataset, documents, packing, part=part, num_samples=num_samples, seed=seed)
    return DocumentDataset(dataset, maps, seq_length=packing.seq_length)
