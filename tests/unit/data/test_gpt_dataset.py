"""Packed samples: the right tokens in the right order."""

from __future__ import annotations

import json
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.data.gpt_dataset import GPTDataset, build_gpt_dataset
from megatron.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from megatron.data.maps.index_cache import StoredArrays
from megatron.data.maps.index_maps import build_index_maps
from megatron.data.splits import split_documents


def write(prefix, sizes):
    """A dataset in which every token is another number."""
    ends = np.cumsum(sizes)
    with IndexedDatasetWriter(prefix, dtype="i4") as writer:
        for size, end in zip(sizes, ends, strict=True):
            writer.add_document(range(end - size, end))
    return IndexedDataset(prefix)


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=20), st.integers(1, 25), st.integers(1, 60))
def test_the_samples_in_text_order_are_the_shuffled_documents_end_to_end(sizes, seq_length, num_samples):
    with tempfile.TemporaryDirectory() as directory:
        indexed = write(Path(directory) / "a", sizes)
        documents = range(len(sizes))
        maps = build_index_maps(indexed.sizes, documents, seq_length=seq_length, num_samples=num_samples, seed=7)
        dataset = GPTDataset(indexed, StoredArrays(maps), seq_length=seq_length)
        text = np.concatenate([indexed[document] for document in maps["documents"]])
        place = np.argsort(maps["shuffle"])  # where each sample of the text has gone
        samples = [dataset[int(i)] for i in place]
    for number, sample in enumerate(samples):
        np.testing.assert_array_equal(sample, text[number * seq_length : (number + 1) * seq_length + 1])
        assert sample.dtype == np.int64
    # What is left over at the end is too short for another sample.
    assert len(text) - 1 - len(samples) * seq_length < seq_length


@pytest.mark.parametrize("name", ["single_small1k_sl64_train", "single_small1k_sl64_4epochs_train"])
def test_the_samples_equal_the_original_ones(oracle, name, tmp_path, monkeypatch):
    case = json.loads((oracle / "index" / "index.json").read_text())[f"{name}.npz"]
    expected = np.load(oracle / "index" / f"{name}.npz")
    for suffix in (".bin", ".idx"):
        (tmp_path / f"a{suffix}").write_bytes((oracle / "data" / "bin" / f"{case['data']}{suffix}").read_bytes())
    indexed = IndexedDataset(tmp_path / "a")
    documents = split_documents(case["split"], len(indexed))[case["part"]]
    chosen = {key: case[key] for key in ("part", "seq_length", "num_samples", "seed")}
    dataset = build_gpt_dataset(indexed, documents, **chosen)
    assert len(dataset) == int(expected["length"]) + 1  # the original's length is one short
    np.testing.assert_array_equal(np.stack([dataset[i] for i in range(32)]), expected["samples_text"])


def test_a_dataset_survives_pickling(tmp_path):
    dataset = build_gpt_dataset(
        write(tmp_path / "a", [50] * 9), range(9), part="train", seq_length=8, num_samples=99, seed=0
    )
    copy = pickle.loads(pickle.dumps(dataset))
    assert all((copy[i] == dataset[i]).all() for i in range(len(dataset)))


def test_there_are_no_samples_outside(tmp_path):
    dataset = build_gpt_dataset(
        write(tmp_path / "a", [50]), range(1), part="train", seq_length=8, num_samples=3, seed=0
    )
    for i in (-1, len(dataset)):
        with pytest.raises(IndexError):
            dataset[i]
    assert dataset.source_of(0) == str(tmp_path / "a")
