"""Index maps: equal to GPT-NeoX's, equal to the obvious loop, every token once, and never stale."""

from __future__ import annotations

import json
import multiprocessing
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.data import index_cache
from megatron.data.index_maps import (
    build_index_maps,
    epochs_needed,
    load_or_build_index_maps,
    sample_starts,
    samples_in_epochs,
)
from megatron.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from megatron.data.splits import split_documents
from megatron.errors import DataError

SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=40)


@pytest.fixture
def dataset(tmp_path):
    return write(tmp_path / "data", [3, 9, 4, 20, 1])


def write(prefix, sizes):
    with IndexedDatasetWriter(prefix, dtype="i4") as writer:
        first = 0
        for size in sizes:
            writer.add_document(range(first, first + size))
            first += size
    return IndexedDataset(prefix)


def starts_by_loop(sizes, seq_length, count):
    """Walk through the documents token by token."""
    places = [(document, offset) for document, size in enumerate(sizes) for offset in range(size)]
    return [places[sample * seq_length] for sample in range(count + 1)]


@settings(deadline=None)
@given(SIZES, st.integers(1, 50))
def test_the_search_equals_the_walk(sizes, seq_length):
    count = samples_in_epochs(1, tokens_per_epoch=sum(sizes), seq_length=seq_length)
    starts = sample_starts(np.array(sizes, np.int32), seq_length=seq_length, count=count)
    assert starts.dtype == np.int64
    assert [tuple(row) for row in starts.tolist()] == starts_by_loop(sizes, seq_length, count)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 10**6), st.integers(1, 5000))
def test_epochs_are_the_fewest_that_suffice(num_samples, tokens_per_epoch, seq_length):
    epochs = epochs_needed(num_samples, tokens_per_epoch=tokens_per_epoch, seq_length=seq_length)
    shape = {"tokens_per_epoch": tokens_per_epoch, "seq_length": seq_length}
    assert epochs >= 1
    assert samples_in_epochs(epochs, **shape) >= num_samples
    assert epochs == 1 or samples_in_epochs(epochs - 1, **shape) < num_samples


@settings(deadline=None)
@given(SIZES, st.integers(1, 20), st.integers(1, 100), st.integers(0, 5))
def test_documents_are_repeated_whole_and_samples_are_a_permutation(sizes, seq_length, num_samples, first):
    sizes = np.array([7] * first + sizes, np.int32)
    documents = range(first, len(sizes))
    maps = build_index_maps(sizes, documents, seq_length=seq_length, num_samples=num_samples, seed=3)
    count = len(maps["shuffle"])
    epochs = len(maps["documents"]) // len(documents)
    assert sorted(maps["documents"].tolist()) == sorted([*documents] * epochs)
    assert sorted(maps["shuffle"].tolist()) == list(range(count))
    assert len(maps["samples"]) == count + 1
    assert count >= num_samples


def test_positions_beyond_two_to_the_31_do_not_wrap():
    sizes = np.full(40, 2**31 - 1, dtype=np.int32)  # 8.6e10 tokens that nobody stores
    seq_length = 2**22
    maps = build_index_maps(sizes, range(40), seq_length=seq_length, num_samples=10_000, seed=1)
    samples = maps["samples"]
    tokens = samples[:, 0] * (2**31 - 1) + samples[:, 1]
    assert samples.dtype == np.int64
    assert (tokens == np.arange(len(samples)) * seq_length).all()
    assert tokens[-1] > 2**36
    assert (samples[:, 1] < 2**31 - 1).all()


@pytest.mark.parametrize("name", ["single_small1k_sl64_train", "single_small1k_sl64_4epochs_train"])
def test_the_maps_equal_the_original_ones(oracle, name):
    case = json.loads((oracle / "index" / "index.json").read_text())[f"{name}.npz"]
    expected = np.load(oracle / "index" / f"{name}.npz")
    dataset = IndexedDataset(oracle / "data" / "bin" / case["data"])
    documents = split_documents(case["split"], len(dataset))[case["part"]]
    chosen = {key: case[key] for key in ("seq_length", "num_samples", "seed")}
    maps = build_index_maps(dataset.sizes, documents, **chosen)
    for ours, theirs in (("documents", "doc_idx"), ("samples", "sample_idx"), ("shuffle", "shuffle_idx")):
        np.testing.assert_array_equal(maps[ours], expected[theirs])


SETTINGS = {"part": "train", "seq_length": 4, "num_samples": 20, "seed": 1}


def test_the_second_time_the_maps_come_from_files(dataset, tmp_path, monkeypatch):
    built = load_or_build_index_maps(dataset, range(5), **SETTINGS)
    names = sorted(path.name for path in tmp_path.glob("*.npy"))
    assert [name.rsplit("_packed_")[0] for name in names] == ["data_train_indexmap_20ns_4sl_1s"] * 3
    monkeypatch.setattr("megatron.data.index_maps.build_index_maps", None)
    found = load_or_build_index_maps(dataset, range(5), **SETTINGS)
    for array in ("documents", "samples", "shuffle"):
        np.testing.assert_array_equal(found[array], built[array])


@pytest.mark.parametrize(
    ("documents", "change"),
    [
        (range(4), {}),
        (range(1, 5), {}),
        (range(5), {"seed": 2}),
        (range(5), {"seq_length": 5}),
        (range(5), {"num_samples": 21}),
    ],
)
def test_other_settings_have_another_cache(dataset, tmp_path, documents, change):
    load_or_build_index_maps(dataset, range(5), **SETTINGS)
    maps = load_or_build_index_maps(dataset, documents, **SETTINGS | change)
    assert len(list(tmp_path.glob("*.npy"))) == 6
    chosen = {key: value for key, value in (SETTINGS | change).items() if key != "part"}
    expected = build_index_maps(dataset.sizes, documents, **chosen)
    for array in expected:
        np.testing.assert_array_equal(maps[array], expected[array])


def test_data_that_is_tokenised_anew_has_another_cache(dataset, tmp_path):
    load_or_build_index_maps(dataset, range(5), **SETTINGS)
    changed = write(tmp_path / "data", [3, 9, 4, 1, 20])  # as many documents and tokens, in another order
    maps = load_or_build_index_maps(changed, range(5), **SETTINGS)
    expected = build_index_maps(changed.sizes, range(5), seq_length=4, num_samples=20, seed=1)
    np.testing.assert_array_equal(maps["samples"], expected["samples"])
    assert len(list(tmp_path.glob("*.npy"))) == 6


def test_a_damaged_cache_file_is_built_again(dataset, tmp_path):
    expected = load_or_build_index_maps(dataset, range(5), **SETTINGS)["samples"].copy()
    path = next(tmp_path.glob("*sample_idx.npy"))
    path.write_bytes(path.read_bytes()[:-5])
    np.testing.assert_array_equal(load_or_build_index_maps(dataset, range(5), **SETTINGS)["samples"], expected)


def test_a_read_only_directory_is_replaced_by_the_cache_directory_and_that_by_memory(dataset, tmp_path, monkeypatch):
    expected = build_index_maps(dataset.sizes, range(5), seq_length=4, num_samples=20, seed=1)["samples"]
    forbidden = {tmp_path}
    store = index_cache._store

    def store_unless_forbidden(arrays, files):
        if next(iter(files.values())).parent in forbidden:
            raise PermissionError
        store(arrays, files)

    monkeypatch.setattr(index_cache, "_store", store_unless_forbidden)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    elsewhere = tmp_path / "home" / "deepy-neox"
    forbidden.add(elsewhere)
    in_memory = load_or_build_index_maps(dataset, range(5), **SETTINGS)
    forbidden.remove(elsewhere)
    in_cache = load_or_build_index_maps(dataset, range(5), **SETTINGS)
    assert not list(tmp_path.glob("*.npy"))
    assert len(list(elsewhere.glob("*.npy"))) == 3
    for maps in (in_memory, in_cache, pickle.loads(pickle.dumps(in_memory)), pickle.loads(pickle.dumps(in_cache))):
        np.testing.assert_array_equal(maps["samples"], expected)
    assert b"deepy-neox" in pickle.dumps(in_cache)


def build_in_process(prefix):
    load_or_build_index_maps(IndexedDataset(prefix), range(5), **SETTINGS)


def test_writers_at_the_same_time_do_no_harm(dataset, tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=build_in_process, args=(dataset.prefix,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert len(list(tmp_path.glob("*.npy"))) == 3
    assert not list(tmp_path.glob("*.partial"))


def test_documents_without_tokens_are_refused(dataset):
    with pytest.raises(DataError, match=r"the train part of .* holds no tokens"):
        load_or_build_index_maps(dataset, range(2, 2), **SETTINGS)
