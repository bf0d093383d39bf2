"""The `.bin`/`.idx` pair: exact bytes, whole files or none, and errors that say what is wrong."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from megatron.data.index_file import PROBE_BYTES, PROBES, IndexFile, fingerprint, write_index
from megatron.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter, bin_path, idx_path, token_dtype
from megatron.data.maps.index_maps import build_index_maps
from megatron.errors import DataError

DOCUMENTS = [[5, 6, 7], [8], [9, 10]]


def write(prefix: Path, documents=DOCUMENTS, dtype="u2") -> Path:
    with IndexedDatasetWriter(prefix, dtype=dtype) as writer:
        for document in documents:
            writer.add_document(document)
    return prefix


def test_the_bytes_are_those_of_the_format(tmp_path):
    write(tmp_path / "a")
    assert (tmp_path / "a.bin").read_bytes() == np.array([5, 6, 7, 8, 9, 10], "<u2").tobytes()
    expected = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 8, 3, 4)
    expected += struct.pack("<3i", 3, 1, 2) + struct.pack("<3q", 0, 6, 8) + struct.pack("<4q", 0, 1, 2, 3)
    assert (tmp_path / "a.idx").read_bytes() == expected


def test_what_was_written_is_read(tmp_path):
    dataset = IndexedDataset(write(tmp_path / "a"))
    assert [document.tolist() for document in (dataset[i] for i in range(len(dataset)))] == DOCUMENTS
    assert dataset.sizes.tolist() == [3, 1, 2]
    assert dataset.document_boundaries.tolist() == [0, 1, 2, 3]
    assert dataset.dtype == np.uint16


def test_a_part_of_a_sequence_is_a_read_only_view(tmp_path):
    dataset = IndexedDataset(write(tmp_path / "a"))
    assert dataset.get(0, 1).tolist() == [6, 7]
    assert dataset.get(0, 1, 1).tolist() == [6]
    assert dataset.get(0, 3).tolist() == []
    assert not dataset.get(0).flags.writeable
    for arguments in ((3,), (0, 4), (0, 1, 3), (0, -1)):
        with pytest.raises(IndexError):
            dataset.get(*arguments)


@pytest.mark.parametrize("suffix", ["", ".bin", ".idx"])
def test_the_prefix_may_carry_a_suffix_and_other_dots(tmp_path, suffix):
    write(tmp_path / "v1.5_text")
    assert len(IndexedDataset(f"{tmp_path / 'v1.5_text'}{suffix}")) == 3


def test_the_oracle_dataset_is_rewritten_byte_for_byte(tmp_path, oracle):
    original = oracle / "data" / "bin" / "a_small1k_eod_text_document"
    dataset = IndexedDataset(original)
    write(tmp_path / "a", [dataset[i] for i in range(len(dataset))], token_dtype(1000))
    for suffix in (".bin", ".idx"):
        assert (tmp_path / f"a{suffix}").read_bytes() == original.with_name(original.name + suffix).read_bytes()


def test_pickling_stores_the_path_and_not_the_tokens(tmp_path):
    dataset = IndexedDataset(write(tmp_path / "a", [range(5000)]))
    data = pickle.dumps(dataset)
    assert len(data) < 1000
    assert pickle.loads(data)[0].tolist() == dataset[0].tolist()


def test_empty_documents_are_skipped_and_an_empty_dataset_is_legal(tmp_path):
    assert IndexedDataset(write(tmp_path / "a", [[1], [], [2]])).sizes.tolist() == [1, 1]
    assert len(IndexedDataset(write(tmp_path / "b", []))) == 0


def test_adding_a_dataset_equals_adding_its_documents(tmp_path):
    part = IndexedDataset(write(tmp_path / "part"))
    with IndexedDatasetWriter(tmp_path / "whole", dtype="u2") as writer:
        writer.add_document([1, 2])
        writer.add_dataset(part)
        assert (writer.documents, writer.tokens) == (4, 8)
    write(tmp_path / "expected", [[1, 2], *DOCUMENTS])
    for suffix in (".bin", ".idx"):
        assert (tmp_path / f"whole{suffix}").read_bytes() == (tmp_path / f"expected{suffix}").read_bytes()
    with (
        pytest.raises(DataError, match="holds uint16 tokens and cannot be added to int32"),
        IndexedDatasetWriter(tmp_path / "other", dtype="i4") as writer,
    ):
        writer.add_dataset(part)


def test_an_error_leaves_nothing_behind_and_an_older_dataset_untouched(tmp_path):
    write(tmp_path / "a")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(DataError):
        write(tmp_path / "a", [[1, 2, 3, 4], [-1]])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_nothing_is_visible_before_the_end(tmp_path):
    with IndexedDatasetWriter(tmp_path / "a", dtype="u2") as writer:
        writer.add_document([1])
        assert not (tmp_path / "a.bin").exists()
        assert not (tmp_path / "a.idx").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "a.idx"]


@pytest.mark.parametrize("ids", [[65536], [-1], np.array([70000], np.int64)])
def test_an_id_that_does_not_fit_the_dtype_is_refused(tmp_path, ids):
    with (
        pytest.raises(DataError, match="does not fit uint16"),
        IndexedDatasetWriter(tmp_path / "a", dtype="u2") as writer,
    ):
        writer.add_document(ids)


def test_token_dtype_changes_at_65500_entries():
    assert token_dtype(65499) == np.uint16
    assert token_dtype(65500) == np.int32


def test_a_missing_dataset_names_those_that_are_there(tmp_path):
    write(tmp_path / "enwik8_text_document")
    with pytest.raises(DataError, match="did you mean enwik8_text_document"):
        IndexedDataset(tmp_path / "enwik8")
    with pytest.raises(DataError, match="did you mean enwik8_text_document"):
        IndexedDataset(tmp_path / "enwiki8_text_document")
    with pytest.raises(DataError, match="the datasets there are enwik8_text_document"):
        IndexedDataset(tmp_path / "something")
    with pytest.raises(DataError, match="there is no directory"):
        IndexedDataset(tmp_path / "nowhere" / "a")
    (tmp_path / "enwik8_text_document.bin").unlink()
    with pytest.raises(DataError, match=r"enwik8_text_document\.bin is missing"):
        IndexedDataset(tmp_path / "enwik8_text_document")


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("a.idx", lambda data: b"TNTIDX\x00\x00" + data[8:], "TNTIDX"),
        ("a.idx", lambda data: b"x" * len(data), "does not begin with the header"),
        ("a.idx", lambda data: b"", "only 0 bytes"),
        ("a.idx", lambda data: data[:20], "does not begin with the header"),
        ("a.idx", lambda data: data[:9] + struct.pack("<Q", 2) + data[17:], "version 2"),
        ("a.idx", lambda data: data[:17] + b"\x63" + data[18:], "token type 99"),
        ("a.idx", lambda data: data[:-1], "truncated or damaged"),
        ("a.idx", lambda data: data[:-8] + struct.pack("<q", 2), "do not span its 3 sequences"),
        ("a.bin", lambda data: data[:-2], "has 10 bytes, but a.idx describes 12: it is truncated"),
        ("a.bin", lambda data: data + b"\x00\x00", "not of the same dataset"),
    ],
)
def test_a_malformed_file_is_explained(tmp_path, file, change, message):
    write(tmp_path / "a")
    path = tmp_path / file
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        IndexedDataset(tmp_path / "a")


def test_the_size_of_the_bin_settles_which_float_a_code_means():
    def index(code):
        return IndexFile(code, np.array([2, 3], np.int32), np.array([0, 8]), np.array([0, 2]))

    assert index(6).dtype_of(8 + 12) == np.float32
    swapped = IndexFile(6, np.array([2, 3], np.int32), np.array([0, 16]), np.array([0, 2]))
    assert swapped.dtype_of(16 + 24) == np.float64  # as Megatron-LM writes it


def test_tokens_are_counted_without_adding_up(tmp_path):
    dataset = IndexedDataset(write(tmp_path / "a"))
    counted = [[dataset.tokens_of(range(first, stop)) for stop in range(first, 4)] for first in range(4)]
    assert counted == [[0, 3, 4, 6], [0, 1, 3], [0, 2], [0]]


def test_a_fingerprint_changes_with_size_time_and_content(tmp_path):
    path = tmp_path / "a.idx"

    def fingerprint_of(data, seconds=1000.0):
        path.write_bytes(data)
        os.utime(path, (seconds, seconds))
        return fingerprint(path)

    data = bytes(range(256)) * 4000  # a megabyte
    middle = 32 * (len(data) - PROBE_BYTES) // (PROBES - 1)  # where one of the blocks begins
    changed = [b"x" + data[1:], data[:-1] + b"x", data[:middle] + b"x" + data[middle + 1 :], data + b"x"]
    prints = {fingerprint_of(data), fingerprint_of(data, 1001.0), *(fingerprint_of(other) for other in changed)}
    assert len(prints) == 6
    assert fingerprint_of(data) == fingerprint_of(data, 1000.9)  # not every file system keeps fractions of a second


@pytest.mark.parametrize("size", [0, 1, PROBE_BYTES, PROBE_BYTES + 1, 10 * PROBE_BYTES - 1, PROBES * PROBE_BYTES])
def test_the_fingerprint_of_a_small_file_depends_on_every_byte(tmp_path, size):
    path = tmp_path / "a.idx"
    path.write_bytes(bytes(size))
    os.utime(path, (1, 1))
    before = fingerprint(path)
    for place in {*range(0, size, PROBE_BYTES // 2 - 1), *range(max(size - 1, 0), size)}:
        data = bytearray(size)
        data[place] = 1
        path.write_bytes(data)
        os.utime(path, (1, 1))
        assert fingerprint(path) != before


def test_copies_have_the_same_content_and_changed_files_another(tmp_path):
    dataset = IndexedDataset(write(tmp_path / "a"))
    for suffix in (".bin", ".idx"):
        (tmp_path / f"copy{suffix}").write_bytes((tmp_path / f"a{suffix}").read_bytes())
        os.utime(tmp_path / f"copy{suffix}", (1, 1))
    copy = IndexedDataset(tmp_path / "copy")
    assert copy.content == dataset.content
    assert copy.fingerprint != dataset.fingerprint
    changed = bytearray((tmp_path / "copy.bin").read_bytes())
    changed[-1] ^= 1
    (tmp_path / "copy.bin").write_bytes(changed)
    (idx, tokens), (same, other) = dataset.content, IndexedDataset(tmp_path / "copy").content
    assert idx == same
    assert tokens != other


@pytest.fixture
def trillion(tmp_path):
    """A dataset of 2^40 tokens in 512 documents, nearly all of it holes in its files; every document ends with its number."""
    sizes = np.full(513, 2**31 - 1, np.int32)
    prefix = tmp_path / "trillion"
    with open(idx_path(prefix), "wb") as file:
        write_index(file, dtype=np.dtype("<u2"), sizes=sizes, boundaries=np.arange(len(sizes) + 1))
    try:
        with open(bin_path(prefix), "wb") as file:
            for number in range(len(sizes)):
                file.seek(2 * (int(sizes[0]) * (number + 1) - 1))
                file.write(struct.pack("<H", number))
    except OSError:
        pytest.skip("this file system has no files of 2 TiB")
    return IndexedDataset(prefix)


def test_tokens_beyond_all_limits_of_small_integers_are_read(trillion):
    """Documents 1, 2 and 512 reach over tokens 2^31, 2^32 and 2^40, the last three quarters over byte 2^40."""
    size = 2**31 - 1
    assert trillion.tokens_of(range(513)) == 513 * size > 2**40
    for number in (0, 1, 2, 255, 511, 512):
        assert trillion.get(number, size - 2).tolist() == [0, number]
    seq_length = 2**31 - 5
    maps = build_index_maps(trillion.sizes, range(513), seq_length=seq_length, num_samples=512, seed=1)
    for sample in (1, 2, 3, 511):
        position, offset = maps["samples"][sample].tolist()
        assert position * size + offset == sample * seq_length
        document = int(maps["documents"][position])
        last = trillion.get(document, max(offset, size - 3))
        assert int(last[-1]) == document
