"""Which documents make up sample i where documents stay whole: `pack_impl` pack_until_overflow and unpacked.

Both arrange whole documents and start each sample with the beginning of one:

  documents [D]      document ids in the order in which they are put into samples      (GPT-NeoX: doc_idx)
  samples   [N + 1]  sample k holds documents[samples[k] : samples[k + 1]]             (GPT-NeoX: sample_idx, first column)
  shuffle   [N]      dataset[i] is sample shuffle[i]                                   (GPT-NeoX: shuffle_idx)

One `numpy.random.RandomState(seed)` shuffles the numbers of the samples, and after them, for pack_until_overflow, the documents of each
epoch anew; a sample takes documents until the next one would make it longer than seq_length + 1 tokens. `unpacked` takes one document
a sample, in file order, over and over. These are the orders of existing GPT-NeoX runs of the same seed. A document without tokens is
left out, and one longer than a sample is too unless `allow_chopped`; otherwise it has a sample of its own and loses its end.

Unlike GPT-NeoX, whose validation and test parts repeat the first documents of the file, documents are those of the part; and a sample
ends with its last document, not with the first token of the next one. Nothing here reads a token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from megatron.data.indexed_dataset import IndexedDataset
from megatron.data.maps.compiled import compiled
from megatron.data.maps.index_cache import StoredArrays, content_key, load_or_build
from megatron.data.maps.index_maps import FILE_NAMES, document_dtype, sample_order
from megatron.data.maps.shuffle import shuffle
from megatron.errors import DataError

CACHE_VERSION = 1  # to be raised when the same inputs give other arrays
WORTH_COMPILING = 1 << 22  # documents; fewer are put into samples sooner than the loop is translated

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Packing:
    """How whole documents fill samples. seq_length: tokens that are predicted, one fewer than a sample has."""

    pack_impl: Literal["pack_until_overflow", "unpacked"]
    allow_chopped: bool
    seq_length: int

    def usable(self, sizes: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Which documents of these sizes, in tokens, are put into samples: bool [documents]."""
        return (sizes > 0) & (self.allow_chopped | (sizes <= self.seq_length + 1))


def load_or_build_document_maps(
    dataset: IndexedDataset, documents: range, packing: Packing, *, part: str, num_samples: int, seed: int
) -> StoredArrays:
    """The maps of `num_samples` samples of `documents` (the split called `part`), from a cache file when there is one.

    The cache's name holds a hash of everything the arrays depend on, the index file of the dataset by its fingerprint: so it cannot be
    stale, and finding it takes as long for many documents as for one. Raises DataError when no document can be used.
    """

    def build() -> dict[str, NDArray[np.generic]]:
        sizes = dataset.sizes[documents.start : documents.stop]
        if not packing.usable(sizes).any():
            raise DataError(_nothing_sentence(f"the {part} part of {dataset.prefix}", sizes, packing))
        return build_document_maps(dataset.sizes, documents, packing, num_samples=num_samples, seed=seed)

    key = content_key(CACHE_VERSION, dataset.fingerprint, documents.start, documents.stop, packing, num_samples, seed)
    chopped = "_chopped" if packing.allow_chopped else ""
    name = (
        f"{dataset.prefix.name}_{part}_indexmap_{num_samples}ns_{packing.seq_length}sl_{seed}s_"
        f"{packing.pack_impl}{chopped}_{key}"
    )
    names = {array: f"{name}_{file_name}" for array, file_name in FILE_NAMES.items()}
    return load_or_build(names, build, beside=dataset.prefix)


def build_document_maps(
    sizes: NDArray[np.int32], documents: range, packing: Packing, *, num_samples: int, seed: int
) -> dict[str, NDArray[np.generic]]:
    """Compute `documents`, `samples` and `shuffle` (see the head of this file); `sizes` [all documents] are in tokens."""
    own = sizes[documents.start : documents.stop]
    random = np.random.RandomState(seed)
    numbers = sample_order(num_samples, random=random)
    if packing.pack_impl == "unpacked":
        usable = np.flatnonzero(packing.usable(own))
        order, starts = usable[np.arange(num_samples) % len(usable)], np.arange(num_samples + 1)
    else:
        order, starts = _fill(own, packing, num_samples, random)
    ids = (order + documents.start).astype(document_dtype(documents))
    return {"documents": ids, "samples": starts, "shuffle": numbers}


def samples_in_passes(passes: int, sizes: NDArray[np.int32], packing: Packing, *, seed: int) -> int:
    """How many samples `passes` passes over documents of these sizes fill.

    Exact for unpacked. How many samples pack_until_overflow fills depends on the order of the documents, which depends on how many
    samples a run asks for: here it is that of a run that asks for none, another order fills a few more or less.
    """
    usable = packing.usable(sizes)
    if packing.pack_impl == "unpacked" or not usable.any():
        return passes * int(usable.sum())
    return sum(len(starts) for _, starts in islice(_epochs(sizes, packing, np.random.RandomState(seed)), passes))


def _fill(
    sizes: NDArray[np.int32], packing: Packing, count: int, random: np.random.RandomState
) -> tuple[Integers, Integers]:
    """As many epochs as `count` samples need: their documents [D], and where each sample starts in them [count + 1]."""
    orders, all_starts, taken, filled = [], [np.zeros(1, np.int64)], 0, 0
    for order, ends in _epochs(sizes, packing, random):
        orders.append(order)
        all_starts.append(ends + taken)
        taken += len(order)
        filled += len(ends)
        if filled >= count:
            break
    starts = np.concatenate(all_starts)[: count + 1]
    return np.concatenate(orders)[: starts[-1]], starts


def _epochs(
    sizes: NDArray[np.int32], packing: Packing, random: np.random.RandomState
) -> Iterator[tuple[Integers, Integers]]:
    """For epoch after epoch the usable documents in their order, and where in it a sample has ended: behind what it holds.

    The last sample of an epoch is open and goes on in the next one; so an end may be 0.
    """
    usable = packing.usable(sizes)
    order = np.arange(len(sizes), dtype=document_dtype(range(len(sizes))))
    tokens = 0  # in the open sample
    while True:
        shuffle(order, random)
        epoch = order[usable[order]]
        ends, tokens = _ends_of_samples(sizes[epoch], packing.seq_length + 1, tokens)
        yield epoch, ends


def _ends_of_samples(sizes: NDArray[np.int32], capacity: int, tokens: int) -> tuple[Integers, int]:
    """Fill a sample that has `tokens` already, then new ones, with documents of `sizes`: where samples end, and what the last one has."""
    ends = np.empty(len(sizes), dtype=np.int64)
    if len(sizes) > WORTH_COMPILING:
        count, tokens = compiled(_put_into_samples)(sizes, capacity, tokens, ends)
    else:
        count, tokens = _put_into_samples(sizes.tolist(), capacity, tokens, ends)
    return ends[:count].copy(), tokens


def _put_into_samples(
    sizes: NDArray[np.int32] | Sequence[int], capacity: int, tokens: int, ends: Integers
) -> tuple[int, int]:
    """Write to `ends` in front of which documents samples end: how many do, and the tokens of the one that is open then."""
    count = 0
    for place in range(len(sizes)):
        size = sizes[place]
        if tokens > 0 and tokens + size > capacity:
            ends[count] = place
            count += 1
            tokens = 0
        tokens += size
    return count, tokens


def _nothing_sentence(where: str, sizes: NDArray[np.int32], packing: Packing) -> str:
    if not sizes.any():
        return f"{where} ({len(sizes)} documents) holds no tokens: give it a larger share of the split, or tokenise the data again."
    return (
        f"{where} ({len(sizes)} documents) has no document that fits {packing.seq_length + 1} tokens: "
        "raise seq_length, or set allow_chopped to true to cut long documents."
    )
