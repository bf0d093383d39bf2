"""Samples of whole documents, padded: `dataset[i]` is one document, or several, from the beginning of a sample on."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from megatron.data.batch import PADDING
from megatron.data.indexed_dataset import IndexedDataset
from megatron.data.mapped_dataset import MappedDataset
from megatron.data.maps.document_maps import Packing, load_or_build_document_maps
from megatron.data.piece import Piece

SAMPLES = 1 << 16  # looked at together


class DocumentDataset(MappedDataset):
    """The samples of some documents of an indexed dataset, in the order given by document maps (see maps/document_maps.py)."""

    def read(self, sample: int, dataset: IndexedDataset) -> NDArray[np.int64]:
        """The sample of this number before shuffling, of the text or of its labels: int64 [seq_length + 1], PADDING behind its documents."""
        begin, end = self.maps["samples"][sample : sample + 2].tolist()
        tokens = np.full(self.seq_length + 1, PADDING, dtype=np.int64)
        filled = 0
        for document in self.maps["documents"][begin:end].tolist():
            piece = dataset.get(document)[: len(tokens) - filled]
            tokens[filled : filled + len(piece)] = piece
            filled += len(piece)
        return tokens

    def pieces(self, sample: int) -> Iterator[Piece]:
        """The documents in the sample of this number before shuffling; one that is longer than a sample loses its end."""
        begin, end = self.maps["samples"][sample : sample + 2].tolist()
        for document in self.maps["documents"][begin:end].tolist():
            length = min(int(self.dataset.sizes[document]), self.seq_length + 1)
            yield Piece(self.dataset.prefix, document, 0, length)

    def samples_at(self, position: int) -> range:
        """The numbers before shuffling of the samples that the document at this position of the map `documents` is in."""
        number = bisect_right(self.maps["samples"], position) - 1
        return range(number, min(number + 1, len(self)))

    def tokens_in(self, samples: range, length: int) -> int:
        """Tokens of the documents of these samples (their numbers in this dataset), without ends that do not fit."""
        total = 0
        for begin in range(samples.start, samples.stop, SAMPLES):
            numbers = self.maps["shuffle"][begin : min(begin + SAMPLES, samples.stop)].astype(np.int64)
            starts = self.maps["samples"][numbers]
            counts = self.maps["samples"][numbers + 1] - starts
            firsts = np.cumsum(counts) - counts  # where each sample's documents begin among all of these
            places = np.arange(counts.sum()) + np.repeat(starts - firsts, counts)
            sizes = self.dataset.sizes[self.maps["documents"][places]]
            total += int(np.minimum(np.add.reduceat(sizes, firsts, dtype=np.int64), length + 1).sum())
        return total


def build_document_dataset(
    dataset: IndexedDataset,
    documents: range,
    packing: Packing,
    *,
    part: str,
    num_samples: int,
    seed: int,
    labels: IndexedDataset | None = None,
) -> DocumentDataset:
    """`num_samples` samples of `documents`, repeating them as often as that takes.

    `part` ("train", "valid_2", ...) only names the cache files; `labels` are those of `dataset` (see labels.py). Raises DataError when
    no document can be used.
    """
    maps = load_or_build_document_maps(dataset, documents, packing, part=part, num_samples=num_samples, seed=seed)
    return DocumentDataset(dataset, maps, seq_length=packing.seq_length, labels=labels)
