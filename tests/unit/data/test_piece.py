"""Samples know which parts of documents they are made of."""

from __future__ import annotations

import numpy as np
import pytest

from megatron.data.batch import PADDING
from megatron.data.blendable_dataset import build_blendable_dataset
from megatron.data.document_dataset import build_document_dataset
from megatron.data.gpt_dataset import build_gpt_dataset
from megatron.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from megatron.data.maps.document_maps import Packing

SIZES = (3, 1, 30, 7, 8, 2, 19, 5)


def write(prefix, first=0):
    """A dataset in which every token is another number."""
    ends = np.cumsum(SIZES) + first
    with IndexedDatasetWriter(prefix, dtype="i4") as writer:
        for size, end in zip(SIZES, ends, strict=True):
            writer.add_document(range(end - size, end))
    return IndexedDataset(prefix)


def build(kind, prefix, first=0):
    indexed, documents = write(prefix, first), range(1, len(SIZES))
    if kind == "packed":
        return build_gpt_dataset(indexed, documents, part="train", seq_length=8, num_samples=30, seed=3)
    packing = Packing(kind, allow_chopped=True, seq_length=8)
    return build_document_dataset(indexed, documents, packing, part="train", num_samples=30, seed=3)


def tokens_of(pieces):
    return [IndexedDataset(piece.prefix).get(piece.document, piece.offset, piece.length) for piece in pieces]


@pytest.mark.parametrize("kind", ["packed", "pack_until_overflow", "unpacked"])
def test_the_pieces_of_a_sample_hold_its_tokens(kind, tmp_path):
    dataset = build(kind, tmp_path / "a")
    for i in range(len(dataset)):
        sample = dataset[i]
        np.testing.assert_array_equal(np.concatenate(tokens_of(dataset.pieces_of(i))), sample[sample != PADDING])
        assert all(piece.length > 0 for piece in dataset.pieces_of(i))
    with pytest.raises(IndexError):
        dataset.pieces_of(len(dataset))


def test_the_pieces_of_a_blend_name_the_dataset_they_are_in(tmp_path):
    datasets = [build("packed", tmp_path / "a"), build("unpacked", tmp_path / "b", first=1000)]
    blend = build_blendable_dataset(datasets, [0.5, 0.5], num_samples=20, part="train", beside=tmp_path / "a")
    prefixes = set()
    for i in range(len(blend)):
        sample = blend[i]
        np.testing.assert_array_equal(np.concatenate(tokens_of(blend.pieces_of(i))), sample[sample != PADDING])
        prefixes |= {piece.prefix for piece in blend.pieces_of(i)}
    assert prefixes == {tmp_path / "a", tmp_path / "b"}
