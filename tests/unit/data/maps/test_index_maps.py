"""Index maps: equal to GPT-NeoX's, equal to the obvious loop, every token once, and never stale."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from megatron.data.maps import index_cache, index_maps
from megatron.data.maps.index_cache import ArrayPieces
from megatron.data.maps.index_maps import (
    build_index_maps,
    compact_sizes,
    document_dtype,
    document_order,
    epochs_needed,
    load_or_build_index_maps,
    plan_index_maps,
    sample_dtype,
    sample_starts,
    samples_in_epochs,
    starts_within,
)
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
    pieces = sample_starts(np.array(sizes, np.int32), np.arange(len(sizes)), seq_length=seq_length)
    starts = np.concatenate(list(pieces))
    assert starts.dtype == np.int64
    assert [tuple(row) for row in starts.tolist()] == starts_by_loop(sizes, seq_length, count)


@pytest.mark.parametrize(("longest", "dtype"), [(2**16 - 1, np.uint16), (2**16, np.int32), (2**24, np.int32)])
def test_sizes_are_compacted_only_as_far_as_they_fit(longest, dtype):
    sizes = np.array([3, longest, 70, 2], np.int32)
    assert compact_sizes(sizes).dtype == dtype
    assert compact_sizes(sizes).tolist() == sizes.tolist()
    maps = build_index_maps(sizes, range(1, 4), seq_length=1000, num_samples=1, seed=3)
    order = maps["documents"].tolist()
    expected = starts_by_steps(sizes[order].tolist(), 0, 0, 1000)
    count = (longest + 72 - 1) // 1000
    assert maps["samples"].tolist() == expected[: count + 1]
    assert len(expected) == count + 1


@settings(deadline=None)
@given(SIZES, st.integers(1, 50), st.integers(1, 7))
def test_pieces_of_any_length_make_the_same_maps(sizes, seq_length, piece):
    def maps():
        return build_index_maps(np.array(sizes), range(len(sizes)), seq_length=seq_length, num_samples=30, seed=5)

    whole = maps()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_maps, "PIECE", piece)
        in_pieces = maps()
    for name, array in whole.items():
        np.testing.assert_array_equal(in_pieces[name], array)


def starts_by_steps(sizes, position, token, seq_length):
    """From document to document with Python's integers, which have no largest one."""
    starts = []
    wanted = -(-token // seq_length) * seq_length
    for place, size in enumerate(sizes):
        while wanted < token + size:
            starts.append([position + place, wanted - token])
            wanted += seq_length
        token += size
    return starts


@settings(deadline=None)
@given(
    sizes=st.lists(st.one_of(st.integers(1, 5000), st.integers(2**31 - 3, 2**31 - 1)), min_size=1, max_size=12),
    position=st.sampled_from([0, 2**31 - 3, 2**32 - 3, 2**40]),
    token=st.sampled_from([0, 2**31, 2**32, 2**40, 2**48]),
    before=st.integers(0, 6000),
    seq_length=st.sampled_from([2**20 + 1, 2**27, 2**31 - 1, 2**31, 2**33]),
)
def test_starts_are_right_around_the_limits_of_integers(sizes, position, token, before, seq_length):
    token = max(token - before, 0)
    pieces = starts_within(np.array(sizes, np.int32), position=position, token=token, seq_length=seq_length)
    assert [row for piece in pieces for row in piece.tolist()] == starts_by_steps(sizes, position, token, seq_length)


@pytest.mark.parametrize("limit", [2**31, 2**32])
def test_document_ids_grow_to_int64_where_they_need_it(limit):
    documents = range(limit - 4, limit + 4)
    order = document_order(documents, epochs=3, random=np.random.RandomState(2))
    assert order.dtype == np.int64
    expected = np.array([*documents] * 3)
    np.random.RandomState(2).shuffle(expected)
    np.testing.assert_array_equal(order, expected)
    assert document_dtype(range(2**31 - 1)) == np.int32
    assert document_dtype(range(2**31)) == np.int64


def test_sample_numbers_grow_to_int64_where_they_need_it():
    assert sample_dtype(2**32 - 3) == np.uint32
    assert sample_dtype(2**32 - 2) == np.int64  # where GPT-NeoX changes over


def test_a_trillion_tokens_are_planned_without_memory_for_them():
    """A virtual dataset: every document is the same four bytes. Only the sizes of the arrays are asked for."""
    sizes = np.broadcast_to(np.int32(2**31 - 1), 2**20)  # 2^51 tokens
    plan = plan_index_maps(sizes, range(5, 2**20), seq_length=2048, num_samples=2**41, seed=0)
    tokens = (2**31 - 1) * (2**20 - 5)
    epochs = -(-(2**41 * 2048 + 1) // tokens)
    assert plan["documents"].shape == (epochs * (2**20 - 5),)
    assert plan["samples"].shape == ((epochs * tokens - 1) // 2048 + 1, 2)
    assert plan["shuffle"].dtype == np.int64


def test_a_corpus_shorter_than_a_sample_is_repeated_and_one_document_is_enough():
    sizes = np.array([3, 5], np.int32)
    maps = build_index_maps(sizes, range(1, 2), seq_length=16, num_samples=7, seed=0)
    assert maps["documents"].tolist() == [1] * 23  # 23 * 5 = 7 * 16 + 3 tokens
    assert maps["samples"].tolist() == [[16 * k // 5, 16 * k % 5] for k in range(8)]
    exact = build_index_maps(sizes, range(1, 2), seq_length=4, num_samples=1, seed=0)
    assert exact["samples"].tolist() == [[0, 0], [0, 4]]  # the last sample ends with the last token


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
    monkeypatch.setattr("megatron.data.maps.index_maps.plan_index_maps", None)
    monkeypatch.setattr(IndexedDataset, "sizes", None)  # the sizes of a billion documents need not be read
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
    """Note in a file that the arrays are computed here, and take a while over it."""

    def noted(*arguments, **settings):
        with open(prefix.with_name("builders"), "a") as file:
            file.write("x")
        time.sleep(0.3)
        return plan_index_maps(*arguments, **settings)

    index_maps.plan_index_maps = noted
    load_or_build_index_maps(IndexedDataset(prefix), range(5), **SETTINGS)


def test_of_processes_that_start_at_the_same_time_one_builds(dataset, tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=build_in_process, args=(dataset.prefix,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert (tmp_path / "builders").read_text() == "x"
    assert len(list(tmp_path.glob("*.npy"))) == 3
    assert not [*tmp_path.glob("*.partial"), *tmp_path.glob("*.lock")]


def build_half(prefix):
    """Write the first rows of the second array, and go no further."""

    def stuck(*arguments, **settings):
        plan = plan_index_maps(*arguments, **settings)

        def pieces():
            yield next(plan["samples"].pieces())[:2]
            prefix.with_name("stuck").touch()
            time.sleep(600)

        return plan | {"samples": ArrayPieces(plan["samples"].shape, plan["samples"].dtype, pieces)}

    index_maps.plan_index_maps = stuck
    load_or_build_index_maps(IndexedDataset(prefix), range(5), **SETTINGS)


def test_a_builder_that_is_killed_holds_up_nobody(dataset, tmp_path):
    expected = build_index_maps(dataset.sizes, range(5), seq_length=4, num_samples=20, seed=1)
    process = multiprocessing.get_context("fork").Process(target=build_half, args=(dataset.prefix,))
    process.start()
    while not (tmp_path / "stuck").exists():
        time.sleep(0.01)
    assert [path.name.rpartition("_")[2] for path in tmp_path.glob("*.npy")] == ["idx.npy"]  # doc_idx alone
    process.kill()
    process.join()
    (partial,) = tmp_path.glob("*.partial")
    started = time.monotonic()
    maps = load_or_build_index_maps(dataset, range(5), **SETTINGS)
    assert time.monotonic() - started < 10
    for array in expected:
        np.testing.assert_array_equal(maps[array], expected[array])
    assert not list(tmp_path.glob("*.lock"))
    # What it left behind goes when nobody can be writing it any more.
    assert partial.exists()
    os.utime(partial, (0, 0))
    next(tmp_path.glob("*sample_idx.npy")).unlink()
    load_or_build_index_maps(dataset, range(5), **SETTINGS)
    assert not partial.exists()


def test_sizes_that_contradict_the_places_are_refused(dataset, tmp_path):
    index = (tmp_path / "data.idx").read_bytes()
    sizes = np.frombuffer(index, "<i4", 5, 34).copy()
    sizes[1] += 1
    (tmp_path / "data.idx").write_bytes(index[:34] + sizes.tobytes() + index[54:])
    with pytest.raises(
        DataError, match="damaged: its documents have 38 tokens by their sizes and 37 by where they begin"
    ):
        load_or_build_index_maps(IndexedDataset(dataset.prefix), range(5), **SETTINGS)


def test_documents_without_tokens_are_refused(dataset):
    with pytest.raises(DataError, match=r"the train part of .* holds no tokens"):
        load_or_build_index_maps(dataset, range(2, 2), **SETTINGS)
