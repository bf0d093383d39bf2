"""From configuration to datasets: splits, blends, weights, epochs, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from megatron.data.blendable_dataset import BlendableDataset
from megatron.data.datasets import build_datasets, iterations_for_epochs, open_sources, weights_by_documents
from megatron.data.indexed_dataset import IndexedDatasetWriter
from megatron.errors import DataError

DEFAULTS = {
    "data_path": None,
    "split": "969, 30, 1",
    **{f"{part}_data_{what}": None for part in ("train", "valid", "test") for what in ("paths", "weights")},
    "weight_by_num_documents": False,
    "weighted_sampler_alpha": 1.0,
    "mmap_warmup": False,
    "seq_length": 8,
    "seed": 1234,
}
SAMPLES = {"train_samples": 30, "valid_samples": 5, "test_samples": 5}


def arguments(**values):
    return SimpleNamespace(**DEFAULTS | values)


def write(path, documents, token, size=10):
    """`documents` documents in which every token is `token`."""
    with IndexedDatasetWriter(path, dtype="u2") as writer:
        for _ in range(documents):
            writer.add_document([token] * size)
    return str(path)


@pytest.fixture
def paths(tmp_path):
    return [
        write(tmp_path / name, documents, token)
        for name, documents, token in (("a", 20, 1), ("b", 60, 2), ("c", 20, 3))
    ]


def test_a_split_dataset_gives_all_three_parts(paths):
    datasets = build_datasets(arguments(data_path=paths[0], split="80,10,10", mmap_warmup=True), **SAMPLES)
    assert (len(datasets.train), len(datasets.valid), len(datasets.test)) == (
        39,
        7,
        7,
    )  # 2 epochs of 160; 3 of 20 tokens


def test_parts_without_documents_or_without_wanted_samples_are_none(paths):
    datasets = build_datasets(arguments(data_path=paths[0], split="100,0,0"), **SAMPLES)
    assert datasets.valid is None
    assert datasets.test is None
    datasets = build_datasets(
        arguments(data_path=paths[0], split="8,1,1"), train_samples=0, valid_samples=5, test_samples=0
    )
    assert datasets.train is None
    assert datasets.valid is not None
    assert datasets.test is None


def test_training_without_documents_is_refused(paths):
    with pytest.raises(DataError, match=r'"split" is "0,1,1" and .* has 20 documents: that leaves none for training'):
        build_datasets(arguments(data_path=paths[0], split="0,1,1"), **SAMPLES)


def test_no_data_at_all_is_refused():
    with pytest.raises(DataError, match='neither "data_path" nor "train_data_paths"'):
        build_datasets(arguments(), **SAMPLES)


def test_several_paths_are_blended_by_their_weights(paths):
    args = arguments(
        train_data_paths=paths,
        train_data_weights=[1, 0, 3],
        valid_data_paths=paths[:1],
        test_data_paths=paths[:2],
    )
    datasets = build_datasets(args, train_samples=80, valid_samples=5, test_samples=6)
    assert isinstance(datasets.train, BlendableDataset)
    tokens = [int(datasets.train[i][0]) for i in range(80)]
    assert np.bincount(tokens).tolist() == [0, 20, 0, 60]
    assert datasets.valid.source_of(0) == paths[0]
    assert np.bincount([int(datasets.test[i][0]) for i in range(6)]).tolist() == [0, 3, 3]


def test_each_dataset_of_a_blend_is_built_with_half_a_percent_more(paths):
    # 24 samples need 1 epoch of 20 * 10 tokens ((200 - 1) // 8 = 24); the margin makes it 25 samples and so 2 epochs.
    args = arguments(train_data_paths=paths[:1], valid_data_paths=paths[:1], test_data_paths=paths[:1])
    datasets = build_datasets(args, train_samples=24, valid_samples=1, test_samples=1)
    assert len(datasets.train) == (2 * 200 - 1) // 8


def test_weights_by_documents():
    assert weights_by_documents([7], alpha=0.3) == [1.0]
    shares = np.array([0.2, 0.6, 0.2])
    for alpha in (1.0, 0.3):
        expected = shares**alpha * (1 - shares)
        np.testing.assert_allclose(
            weights_by_documents([20, 60, 20], alpha=alpha), expected / expected.sum(), rtol=1e-12
        )
    with pytest.raises(DataError, match="no documents"):
        weights_by_documents([0, 0], alpha=1.0)


def test_weights_by_documents_replace_given_weights(paths):
    args = arguments(
        train_data_paths=paths,
        train_data_weights=[1, 1, 1],
        valid_data_paths=paths[:1],
        test_data_paths=paths[:1],
        weight_by_num_documents=True,
    )
    weights = [source.weight for source in open_sources(args)["train"]]
    assert weights == weights_by_documents([20, 60, 20], alpha=1.0)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 2], "has 2 numbers for 3"),
        ([1, -1, 1], "must not be negative"),
        ([0, 0, 0], "not all 0"),
        ([1, float("nan"), 1], "negative"),
    ],
)
def test_weights_that_make_no_sense_are_refused(paths, weights, message):
    with pytest.raises(DataError, match=message):
        open_sources(arguments(train_data_paths=paths, train_data_weights=weights))


def test_epochs_become_iterations_that_need_no_further_epoch(paths):
    args = arguments(data_path=paths[0], split="80,10,10")  # 160 tokens
    assert iterations_for_epochs(args, epochs=1, global_batch=4) == (160 - 1) // 8 // 4
    iterations = iterations_for_epochs(args, epochs=3, global_batch=4)
    assert iterations == (3 * 160 - 1) // 8 // 4
    train = build_datasets(args, train_samples=iterations * 4, valid_samples=0, test_samples=0).train
    assert len(train.maps["documents"]) == 3 * 16
    several = arguments(train_data_paths=paths)
    assert iterations_for_epochs(several, epochs=1, global_batch=1) == (1000 - 1) // 8


def test_epochs_that_do_not_fill_a_batch_are_refused(paths):
    with pytest.raises(DataError, match="gives 19 samples of 8 tokens, fewer than one batch of 20"):
        iterations_for_epochs(arguments(data_path=paths[0], split="80,10,10"), epochs=1, global_batch=20)
