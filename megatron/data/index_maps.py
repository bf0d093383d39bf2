"""Which tokens make up sample i of a packed dataset: three arrays, computed from the documents' sizes and a seed.

The documents of a split, repeated for E epochs and shuffled together, are laid end to end; sample k of this text is the
`seq_length + 1` tokens from token k * seq_length on, so that consecutive samples share one token; the samples are then shuffled.

  documents [E * n]    document ids in the order in which they are laid end to end         (GPT-NeoX: doc_idx)
  samples   [N + 1, 2] (position in `documents`, token offset) where sample k begins       (GPT-NeoX: sample_idx)
  shuffle   [N]        dataset[i] is sample shuffle[i]                                     (GPT-NeoX: shuffle_idx)

with E the smallest number of epochs that yields the samples asked for and N = (E * tokens_per_epoch - 1) // seq_length. One
`numpy.random.RandomState(seed)` shuffles documents, then samples: the same arrays as in existing GPT-NeoX runs of the same seed.
All positions are int64. Nothing here reads a token.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from megatron.data.index_cache import StoredArrays, load_or_build
from megatron.data.indexed_dataset import IndexedDataset
from megatron.errors import DataError

CACHE_VERSION = 1  # to be raised when the same inputs give other arrays
FILE_NAMES = {"documents": "doc_idx", "samples": "sample_idx", "shuffle": "shuffle_idx"}


def load_or_build_index_maps(
    dataset: IndexedDataset, documents: range, *, part: str, seq_length: int, num_samples: int, seed: int
) -> StoredArrays:
    """The index maps of `documents` (the split called `part`), from a cache file when there is one.

    The cache's name holds a hash of everything the arrays depend on, so it cannot be stale.
    Raises DataError when the documents hold no tokens.
    """
    sizes = dataset.sizes[documents.start : documents.stop]
    if sizes.sum(dtype=np.int64) == 0:
        raise DataError(
            f"the {part} part of {dataset.prefix} ({len(documents)} documents) holds no tokens: "
            "give it a larger share of the split, or tokenise the data again."
        )
    key = _content_key(sizes, documents.start, seq_length=seq_length, num_samples=num_samples, seed=seed)
    name = f"{dataset.prefix.name}_{part}_indexmap_{num_samples}ns_{seq_length}sl_{seed}s_packed_{key}"
    return load_or_build(
        {array: f"{name}_{file_name}" for array, file_name in FILE_NAMES.items()},
        lambda: build_index_maps(dataset.sizes, documents, seq_length=seq_length, num_samples=num_samples, seed=seed),
        beside=dataset.prefix,
    )


def build_index_maps(
    sizes: NDArray[np.int32], documents: range, *, seq_length: int, num_samples: int, seed: int
) -> dict[str, NDArray[np.generic]]:
    """Compute `documents`, `samples` and `shuffle` (see the head of this file); `sizes` [all documents] are in tokens."""
    tokens_per_epoch = int(sizes[documents.start : documents.stop].sum(dtype=np.int64))
    epochs = epochs_needed(num_samples, tokens_per_epoch=tokens_per_epoch, seq_length=seq_length)
    random = np.random.RandomState(seed)
    order = document_order(documents, epochs=epochs, random=random)
    count = samples_in_epochs(epochs, tokens_per_epoch=tokens_per_epoch, seq_length=seq_length)
    return {
        "documents": order,
        "samples": sample_starts(sizes[order], seq_length=seq_length, count=count),
        "shuffle": sample_order(count, random=random),
    }


def samples_in_epochs(epochs: int, *, tokens_per_epoch: int, seq_length: int) -> int:
    """How many samples `epochs` passes over the documents give."""
    return (epochs * tokens_per_epoch - 1) // seq_length


def epochs_needed(num_samples: int, *, tokens_per_epoch: int, seq_length: int) -> int:
    """The smallest number of epochs, at least one, that gives `num_samples` samples."""
    return max(1, -(-(num_samples * seq_length + 1) // tokens_per_epoch))


def document_order(documents: range, *, epochs: int, random: np.random.RandomState) -> NDArray[np.generic]:
    """The document ids of all epochs, shuffled together: int32 [epochs * documents] (int64 where ids need it)."""
    dtype = np.int32 if documents.stop <= np.iinfo(np.int32).max else np.int64
    order = np.tile(np.arange(documents.start, documents.stop, dtype=dtype), epochs)
    random.shuffle(order)
    return order


def sample_starts(sizes: NDArray[np.int32], *, seq_length: int, count: int) -> NDArray[np.int64]:
    """Where samples 0 .. count begin in documents of `sizes` tokens laid end to end: int64 [count + 1, 2].

    Columns: position in `sizes`, token offset in that document. Token k * seq_length is in the first document that ends behind it.
    """
    ends = np.cumsum(sizes, dtype=np.int64)
    tokens = np.arange(count + 1, dtype=np.int64) * seq_length
    starts = np.empty((count + 1, 2), dtype=np.int64)
    starts[:, 0] = np.searchsorted(ends, tokens, side="right")
    starts[:, 1] = tokens - (ends - sizes)[starts[:, 0]]
    return starts


def sample_order(count: int, *, random: np.random.RandomState) -> NDArray[np.generic]:
    """The numbers 0 .. count - 1, shuffled: uint32 [count], int64 where that is too small."""
    order = np.arange(count, dtype=np.uint32 if count < np.iinfo(np.uint32).max - 1 else np.int64)
    random.shuffle(order)
    return order


def _content_key(sizes: NDArray[np.int32], first: int, **settings: int) -> str:
    digest = hashlib.blake2b(digest_size=8)
    digest.update(repr((CACHE_VERSION, first, len(sizes), sorted(settings.items()))).encode())
    digest.update(np.ascontiguousarray(sizes).data)
    return digest.hexdigest()
