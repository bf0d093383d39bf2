"""Samples of whole documents: which documents, in which order, as a loop over documents would put them together."""

from __future__ import annotations

import itertools
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.data.batch import PADDING
from megatron.data.document_dataset import DocumentDataset, build_document_dataset
from megatron.data.indexed_dataset import IndexedDataset
from megatron.data.maps import document_maps
from megatron.data.maps.document_maps import (
    Packing,
    build_document_maps,
    load_or_build_document_maps,
    samples_in_passes,
)
from megatron.data.maps.index_cache import StoredArrays
from megatron.errors import DataError
from tests.unit.data.test_gpt_dataset import write

SEED = 7
OVERFLOW = Packing("pack_until_overflow", allow_chopped=True, seq_length=8)
CHOPPED = st.booleans()
SIZES = st.lists(st.integers(0, 14), min_size=1, max_size=12)


def usable(size, packing):
    return size > 0 and (packing.allow_chopped or size <= packing.seq_length + 1)


def samples_by_loop(sizes, documents, packing, num_samples):
    """The documents of each sample in the order of the text, as GPT-NeoX finds them: one document after the other."""
    random = np.random.RandomState(SEED)
    random.shuffle(np.arange(num_samples))
    order = np.arange(len(documents))
    samples, open_sample, tokens = [], [], 0
    while True:
        if packing.pack_impl == "pack_until_overflow":
            random.shuffle(order)
        for number in order:
            document = documents[int(number)]
            size = sizes[document]
            if not usable(size, packing):
                continue
            limit = packing.seq_length + 1 if packing.pack_impl == "pack_until_overflow" else 0
            if open_sample and tokens + size > limit:
                samples.append(open_sample)
                open_sample, tokens = [], 0
            open_sample.append(document)
            tokens += size
            if len(samples) == num_samples:
                return samples


def samples_of(maps):
    starts = maps["samples"].tolist()
    return [maps["documents"][begin:end].tolist() for begin, end in itertools.pairwise(starts)]


@settings(deadline=None)
@given(
    SIZES,
    st.integers(0, 3),
    st.sampled_from(["pack_until_overflow", "unpacked"]),
    CHOPPED,
    st.integers(1, 12),
    st.integers(1, 40),
)
def test_samples_are_those_of_a_loop_over_documents(sizes, first, pack_impl, allow_chopped, seq_length, num_samples):
    packing = Packing(pack_impl, allow_chopped, seq_length)
    documents = range(first, first + len(sizes))
    sizes = np.array([5] * first + sizes + [3], dtype=np.int32)
    if not any(usable(sizes[document], packing) for document in documents):
        return
    maps = build_document_maps(sizes, documents, packing, num_samples=num_samples, seed=SEED)
    assert samples_of(maps) == samples_by_loop(sizes, documents, packing, num_samples)
    shuffled = np.arange(num_samples)
    np.random.RandomState(SEED).shuffle(shuffled)
    np.testing.assert_array_equal(maps["shuffle"], shuffled)


@settings(deadline=None)
@given(SIZES.filter(any), st.integers(1, 12), st.integers(1, 5))
def test_the_samples_of_some_passes_are_those_that_the_documents_fill(sizes, seq_length, passes):
    sizes = np.array(sizes, dtype=np.int32)
    one_each = Packing("unpacked", allow_chopped=True, seq_length=seq_length)
    assert samples_in_passes(passes, sizes, one_each, seed=SEED) == passes * np.count_nonzero(sizes)
    together = Packing("pack_until_overflow", allow_chopped=True, seq_length=seq_length)
    filled = samples_in_passes(passes, sizes, together, seed=SEED)
    random = np.random.RandomState(SEED)
    order, count, tokens = np.arange(len(sizes)), 0, 0
    for _ in range(passes):
        random.shuffle(order)
        for size in sizes[order].tolist():
            if size and tokens and tokens + size > seq_length + 1:
                count, tokens = count + 1, 0
            tokens += size
    assert filled == count


@pytest.mark.parametrize(
    ("sizes", "allow_chopped", "used"),
    [
        ([9, 9], True, {0, 1}),  # each exactly full
        ([4, 5], True, {0, 1}),  # full together
        ([10], True, {0}),  # loses its end
        ([10, 3], False, {1}),  # too long by one token
        ([9, 0, 10], False, {0}),  # as long as a sample is not too long; an empty one is left out
    ],
)
def test_documents_may_fill_a_sample_exactly(tmp_path, sizes, allow_chopped, used):
    dataset = indexed(tmp_path / "a", sizes)
    packing = Packing("pack_until_overflow", allow_chopped, seq_length=8)
    filled = build_document_dataset(dataset, range(len(sizes)), packing, part="train", num_samples=6, seed=SEED)
    assert set(filled.maps["documents"].tolist()) == used
    assert all(len(filled[i]) == 9 and PADDING not in filled[i] for i in range(6))


def indexed(prefix, sizes):
    """A dataset in which every token is another number; documents may be empty."""
    dataset = write(prefix, [size for size in sizes if size])
    if 0 not in sizes:
        return dataset

    class WithEmptyDocuments:
        """Documents without tokens, as in files of other programs: a writer of ours leaves them out."""

        prefix, fingerprint = dataset.prefix, "of its own"
        sizes = np.array([], dtype=np.int32)

        def get(self, i):
            return dataset.get(int(np.count_nonzero(self.sizes[:i])))

    WithEmptyDocuments.sizes = np.array(sizes, dtype=np.int32)
    return WithEmptyDocuments()


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 14), min_size=1, max_size=9),
    st.sampled_from(["pack_until_overflow", "unpacked"]),
    st.integers(1, 20),
)
def test_a_sample_is_its_documents_and_padding(sizes, pack_impl, num_samples):
    packing = Packing(pack_impl, allow_chopped=True, seq_length=8)
    with tempfile.TemporaryDirectory() as directory:
        dataset = write(Path(directory) / "a", sizes)
        maps = build_document_maps(dataset.sizes, range(len(sizes)), packing, num_samples=num_samples, seed=SEED)
        filled = DocumentDataset(dataset, StoredArrays(maps), seq_length=8)
        assert len(filled) == num_samples
        for i in range(num_samples):
            documents = samples_of(maps)[int(maps["shuffle"][i])]
            text = [int(token) for document in documents for token in dataset[document]][:9]
            assert filled[i].tolist() == text + [PADDING] * (9 - len(text))
            assert filled[i].dtype == np.int64


def test_no_document_that_fits_is_told(tmp_path):
    dataset = write(tmp_path / "a", [20, 30])
    packing = Packing("unpacked", allow_chopped=False, seq_length=8)
    with pytest.raises(DataError, match=r"the train part of .*a \(2 documents\) has no document that fits 9 tokens"):
        build_document_dataset(dataset, range(2), packing, part="train", num_samples=3, seed=SEED)
    with pytest.raises(DataError, match=r"\(0 documents\) holds no tokens"):
        build_document_dataset(dataset, range(0), packing, part="train", num_samples=3, seed=SEED)


CHANGES = [
    {"pack_impl": "unpacked"},
    {"allow_chopped": False},
    {"seq_length": 9},
    {"num_samples": 21},
    {"seed": 8},
    {"documents": range(1, 9)},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_caches_are_found_again_and_never_taken_for_others(tmp_path, change):
    dataset = write(tmp_path / "a", [3, 9, 4, 12, 1, 7, 7, 2, 8])

    def load(**changes):
        chosen = {**vars(OVERFLOW), "num_samples": 20, "seed": SEED, "documents": range(9), **changes}
        documents, count, seed = chosen.pop("documents"), chosen.pop("num_samples"), chosen.pop("seed")
        packing = Packing(**chosen)
        found = load_or_build_document_maps(dataset, documents, packing, part="train", num_samples=count, seed=seed)
        built = build_document_maps(dataset.sizes, documents, packing, num_samples=count, seed=seed)
        assert all(np.array_equal(found[name], built[name]) for name in built)
        return sorted(path.name for path in tmp_path.glob("*.npy"))

    first = load()
    assert len(first) == 3
    assert load() == first
    assert len(load(**change)) == 6
    assert len(load(**change)) == 6


def test_many_documents_are_put_together_by_a_translated_loop(monkeypatch):
    """Documents whose sizes need more than 32 bits together."""
    sizes = np.random.RandomState(1).randint(1, 60_000, size=200_000).astype(np.int32)
    packing = Packing("pack_until_overflow", allow_chopped=False, seq_length=50_000)

    def build():
        return build_document_maps(sizes, range(len(sizes)), packing, num_samples=150_000, seed=SEED)

    maps = build()
    monkeypatch.setattr(document_maps, "WORTH_COMPILING", 0)
    translated = build()
    assert all(np.array_equal(maps[name], translated[name]) for name in maps)
    total = np.cumsum(sizes[maps["documents"]], dtype=np.int64)
    tokens = np.diff(total[maps["samples"][1:] - 1], prepend=0)
    following = sizes[maps["documents"][maps["samples"][1:-1]]]
    assert int(total[-1]) > 2**31
    assert tokens.max() <= 50_001
    assert (tokens[:-1] + following > 50_001).all()


def test_a_dataset_of_whole_documents_is_read_from_disk_again(tmp_path):
    dataset = IndexedDataset(write(tmp_path / "a", [5] * 9).prefix)
    filled = build_document_dataset(dataset, range(9), OVERFLOW, part="train", num_samples=20, seed=SEED)
    copy = pickle.loads(pickle.dumps(filled))
    assert all((copy[i] == filled[i]).all() for i in range(20))
    assert filled.source_of(0) == str(tmp_path / "a")
    for i in (-1, 20):
        with pytest.raises(IndexError):
            filled[i]
