"""Which tokens make up sample i of a packed dataset: three arrays, computed from the documents' sizes and a seed.

The documents of a split, repeated for E epochs and shuffled together, are laid end to end; sample k of this text is the
`seq_length + 1` tokens from token k * seq_length on, so that consecutive samples share one token; the samples are then shuffled.

  documents [E * n]    document ids in the order in which they are laid end to end         (GPT-NeoX: doc_idx)
  samples   [N + 1, 2] (position in `documents`, token offset) where sample k begins       (GPT-NeoX: sample_idx)
  shuffle   [N]        dataset[i] is sample shuffle[i]                                     (GPT-NeoX: shuffle_idx)

with E the smallest number of epochs that yields the samples asked for and N = (E * tokens_per_epoch - 1) // seq_length. One
`numpy.random.RandomState(seed)` shuffles documents, then samples: the same arrays as in existing GPT-NeoX runs of the same seed.
All positions are int64. Nothing here reads a token. In memory are at a time only one of the arrays that are shuffled and a copy of the
sizes; `samples` never is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron.data.indexed_dataset import IndexedDataset
from megatron.data.maps.index_cache import ArrayPieces, StoredArrays, content_key, load_or_build
from megatron.data.maps.shuffle import shuffle
from megatron.errors import DataError

CACHE_VERSION = 2  # to be raised when the same inputs give other arrays
FILE_NAMES = {"documents": "doc_idx", "samples": "sample_idx", "shuffle": "shuffle_idx"}
PIECE = 1 << 13  # documents, or samples, looked at together: what is computed of them stays in the nearest caches


def load_or_build_index_maps(
    dataset: IndexedDataset, documents: range, *, part: str, seq_length: int, num_samples: int, seed: int
) -> StoredArrays:
    """The index maps of `documents` (the split called `part`), from a cache file when there is one.

    The cache's name holds a hash of everything the arrays depend on, the index file of the dataset by its fingerprint: so it cannot be
    stale, and finding it takes as long for a billion documents as for one. Raises DataError when the documents hold no tokens.
    """
    settings = {"seq_length": seq_length, "num_samples": num_samples, "seed": seed}

    def build() -> dict[str, ArrayPieces]:
        tokens = int(dataset.sizes[documents.start : documents.stop].sum(dtype=np.int64))
        if tokens != dataset.tokens_of(documents):
            raise DataError(
                f"{dataset.prefix}.idx is damaged: its documents have {tokens} tokens by their sizes and "
                f"{dataset.tokens_of(documents)} by where they begin. Copy it again, or tokenise the data again."
            )
        if tokens == 0:
            raise DataError(
                f"the {part} part of {dataset.prefix} ({len(documents)} documents) holds no tokens: "
                "give it a larger share of the split, or tokenise the data again."
            )
        return plan_index_maps(dataset.sizes, documents, **settings)

    key = _key(dataset.fingerprint, documents, settings)
    name = f"{dataset.prefix.name}_{part}_indexmap_{num_samples}ns_{seq_length}sl_{seed}s_packed_{key}"
    names = {array: f"{name}_{file_name}" for array, file_name in FILE_NAMES.items()}
    return load_or_build(names, build, beside=dataset.prefix)


def build_index_maps(
    sizes: NDArray[np.int32], documents: range, *, seq_length: int, num_samples: int, seed: int
) -> dict[str, NDArray[np.generic]]:
    """Compute `documents`, `samples` and `shuffle` (see the head of this file); `sizes` [all documents] are in tokens."""
    plan = plan_index_maps(sizes, documents, seq_length=seq_length, num_samples=num_samples, seed=seed)
    return {name: array.join() for name, array in plan.items()}


def plan_index_maps(
    sizes: NDArray[np.int32], documents: range, *, seq_length: int, num_samples: int, seed: int
) -> dict[str, ArrayPieces]:
    """The three arrays, to be computed piece by piece and in this order: each goes on from the one before."""
    tokens_per_epoch = int(sizes[documents.start : documents.stop].sum(dtype=np.int64))
    epochs = epochs_needed(num_samples, tokens_per_epoch=tokens_per_epoch, seq_length=seq_length)
    count = samples_in_epochs(epochs, tokens_per_epoch=tokens_per_epoch, seq_length=seq_length)
    random = np.random.RandomState(seed)
    order: list[NDArray[np.integer[Any]]] = []

    def lay_documents() -> Iterator[NDArray[np.integer[Any]]]:
        order.append(document_order(documents, epochs=epochs, random=random))
        yield order[0]

    def cut_samples() -> Iterator[NDArray[np.int64]]:
        own = compact_sizes(sizes[documents.start : documents.stop])
        return sample_starts(own, order.pop(), first=documents.start, seq_length=seq_length)

    def shuffle_samples() -> Iterator[NDArray[np.integer[Any]]]:
        yield sample_order(count, random=random)

    return {
        "documents": ArrayPieces((epochs * len(documents),), document_dtype(documents), lay_documents),
        "samples": ArrayPieces((count + 1, 2), np.dtype(np.int64), cut_samples),
        "shuffle": ArrayPieces((count,), sample_dtype(count), shuffle_samples),
    }


def samples_in_epochs(epochs: int, *, tokens_per_epoch: int, seq_length: int) -> int:
    """How many samples `epochs` passes over the documents give."""
    return (epochs * tokens_per_epoch - 1) // seq_length


def epochs_needed(num_samples: int, *, tokens_per_epoch: int, seq_length: int) -> int:
    """The smallest number of epochs, at least one, that gives `num_samples` samples."""
    return max(1, -(-(num_samples * seq_length + 1) // tokens_per_epoch))


def document_dtype(documents: range) -> np.dtype[np.integer[Any]]:
    """What document ids are stored as: int32, int64 where they need it."""
    return np.dtype(np.int32 if documents.stop <= np.iinfo(np.int32).max else np.int64)


def sample_dtype(count: int) -> np.dtype[np.integer[Any]]:
    """What the numbers of `count` samples are stored as: uint32, int64 where that is too small."""
    return np.dtype(np.uint32 if count < np.iinfo(np.uint32).max - 1 else np.int64)


def document_order(documents: range, *, epochs: int, random: np.random.RandomState) -> NDArray[np.integer[Any]]:
    """The document ids of all epochs, shuffled together: [epochs * documents]."""
    epoch = np.arange(documents.start, documents.stop, dtype=document_dtype(documents))
    order = epoch if epochs == 1 else np.tile(epoch, epochs)
    shuffle(order, random)
    return order


def compact_sizes(sizes: NDArray[np.int32]) -> NDArray[np.integer[Any]]:
    """A copy of `sizes` in memory, in two bytes each where that is enough.

    Sizes are looked up in random order. In an index file, mapped in small pages and at an address that does not divide by their width,
    that takes several times as long.
    """
    return sizes.astype(np.uint16 if sizes.max() <= np.iinfo(np.uint16).max else np.int32)


def sample_starts(
    sizes: NDArray[np.integer[Any]], order: NDArray[np.integer[Any]], *, first: int = 0, seq_length: int
) -> Iterator[NDArray[np.int64]]:
    """Where samples 0, 1, ... begin in the documents of `order` laid end to end, piece by piece: rows as of `starts_within`.

    sizes[0] is that of document `first`.
    """
    token = 0
    for position in range(0, len(order), PIECE):
        piece = np.take(sizes, order[position : position + PIECE] - first)
        yield from starts_within(piece, position=position, token=token, seq_length=seq_length)
        token += int(piece.sum(dtype=np.int64))


def starts_within(
    sizes: NDArray[np.integer[Any]], *, position: int, token: int, seq_length: int
) -> Iterator[NDArray[np.int64]]:
    """Where the samples begin that begin in documents of `sizes` tokens: int64 [at most PIECE, 2], several if there are that many.

    position, token: how many documents and tokens of the text come before these. Columns: position of a document in the text, token
    offset in it. Token k * seq_length is in the first document that ends behind it.
    """
    ends = token + np.cumsum(sizes, dtype=np.int64)
    first, behind = -(-token // seq_length) * seq_length, int(ends[-1])
    for begin in range(first, behind, PIECE * seq_length):
        tokens = np.arange(begin, min(begin + PIECE * seq_length, behind), seq_length, dtype=np.int64)
        places = np.searchsorted(ends, tokens, side="right")
        starts = np.empty((len(tokens), 2), dtype=np.int64)
        starts[:, 0] = places + position
        starts[:, 1] = tokens - (ends[places] - sizes[places])
        yield starts


def sample_order(count: int, *, random: np.random.RandomState) -> NDArray[np.integer[Any]]:
    """The numbers 0 .. count - 1, shuffled: [count]."""
    order = np.arange(count, dtype=sample_dtype(count))
    shuffle(order, random)
    return order


def _key(fingerprint: str, documents: range, settings: dict[str, int]) -> str:
    return content_key(CACHE_VERSION, fingerprint, documents.start, documents.stop, sorted(settings.items()))
