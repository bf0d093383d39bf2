"""From configuration to datasets: splits, blends, weights, epochs, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from megatron.data.blendable_dataset import BlendableDataset
from megatron.data.datasets import build_datasets, iterations_for_epochs, open_sources, weights_by_documents
from megatron.data.indexed_dataset import IndexedDatasetWriter
from megatron.data.loaders import StepLoader
from megatron.data.samplers import BatchPlan
from megatron.errors import DataError
from megatron.neox_arguments.batch_schedule import BatchSchedule

DEFAULTS = {
    "data_path": None,
    "split": "969, 30, 1",
    **{f"{part}_data_{what}": None for part in ("train", "valid", "test") for what in ("paths", "weights")},
    **{f"{part}_label_data_paths": None for part in ("train", "valid", "test")},
    "validation_sets": None,
    "weight_by_num_documents": False,
    "weighted_sampler_alpha": 1.0,
    "mmap_warmup": False,
    "use_shared_fs": True,
    "seq_length": 8,
    "pack_impl": "packed",
    "allow_chopped": True,
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
    assert (len(datasets.train), len(datasets.valid["validation"]), len(datasets.test)) == (
        39,
        7,
        7,
    )  # 2 epochs of 160; 3 of 20 tokens


def test_parts_without_documents_or_without_wanted_samples_are_none(paths):
    datasets = build_datasets(arguments(data_path=paths[0], split="100,0,0"), **SAMPLES)
    assert datasets.valid == {}
    assert datasets.test is None
    datasets = build_datasets(
        arguments(data_path=paths[0], split="8,1,1"), train_samples=0, valid_samples=5, test_samples=0
    )
    assert datasets.train is None
    assert list(datasets.valid) == ["validation"]
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
    assert datasets.valid["validation"].source_of(0) == paths[0]
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
    with pytest.raises(DataError, match=r"\[5, 0\] documents, only one has any"):
        weights_by_documents([5, 0], alpha=1.0)


@given(st.lists(st.integers(1, 10**9), min_size=2, max_size=8), st.sampled_from([0, 0.3, 0.7, 1, 2]))
def test_weights_by_documents_equal_the_original_ones_to_the_last_bit(documents, alpha):
    total = sum(documents)
    shares = [count / total for count in documents]
    powers = [share**alpha for share in shares]
    power_sum = sum(powers)
    products = [power / power_sum * (1 - share) for power, share in zip(powers, shares, strict=True)]
    product_sum = sum(products)
    assert weights_by_documents(documents, alpha=alpha) == [product / product_sum for product in products]


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
    assert iterations_for_epochs(args, epochs=1, schedule=BatchSchedule.constant(4)) == (160 - 1) // 8 // 4
    iterations = iterations_for_epochs(args, epochs=3, schedule=BatchSchedule.constant(4))
    assert iterations == (3 * 160 - 1) // 8 // 4
    train = build_datasets(args, train_samples=iterations * 4, valid_samples=0, test_samples=0).train
    assert len(train.maps["documents"]) == 3 * 16
    several = arguments(train_data_paths=paths)
    assert iterations_for_epochs(several, epochs=1, schedule=BatchSchedule.constant(1)) == (1000 - 1) // 8


def test_epochs_that_do_not_fill_a_batch_are_refused(paths):
    with pytest.raises(DataError, match="gives 19 samples of 8 tokens, fewer than one batch of 20"):
        iterations_for_epochs(
            arguments(data_path=paths[0], split="80,10,10"), epochs=1, schedule=BatchSchedule.constant(20)
        )


WHOLE = {"pack_impl": "unpacked", "allow_chopped": False}


@pytest.mark.parametrize("pack_impl", ["unpacked", "pack_until_overflow"])
def test_every_part_and_every_dataset_of_a_blend_keeps_documents_whole(paths, tmp_path, pack_impl):
    fitting = write(tmp_path / "fitting", 30, token=4, size=4)
    args = arguments(data_path=fitting, split="80,10,10", pack_impl=pack_impl, seq_length=10)
    parts = build_datasets(args, **SAMPLES)
    per_sample = 1 if pack_impl == "unpacked" else 2
    for dataset, count in ((parts.train, 30), (parts.valid["validation"], 5), (parts.test, 5)):
        assert len(dataset) == count
        assert all((dataset[i] == 4).sum() == 4 * per_sample for i in range(count))
    # Documents of 10 tokens do not fit: their dataset is blended with them cut, and refused without.
    blend = {"train_data_paths": [paths[0], fitting], "train_data_weights": [1, 3]}
    lists = {**blend, "valid_data_paths": [fitting], "test_data_paths": [fitting], "pack_impl": pack_impl}
    train = build_datasets(arguments(**lists), train_samples=40, valid_samples=0, test_samples=0).train
    samples = [[token for token in train[i].tolist() if token >= 0] for i in range(40)]
    assert sorted(map(tuple, samples)) == [(1,) * 9] * 10 + [(4,) * 4 * per_sample] * 30
    with pytest.raises(DataError, match="no document that fits 9 tokens"):
        build_datasets(arguments(**lists, allow_chopped=False), train_samples=40, valid_samples=0, test_samples=0)


def test_epochs_of_whole_documents_count_samples(paths, tmp_path):
    args = arguments(data_path=paths[0], split="80,10,10", pack_impl="unpacked")
    assert iterations_for_epochs(args, epochs=3, schedule=BatchSchedule.constant(4)) == 3 * 16 // 4
    fitting = write(tmp_path / "fitting", 12, token=4, size=4)
    lists = arguments(train_data_paths=[paths[0], fitting], pack_impl="unpacked", allow_chopped=False)
    assert iterations_for_epochs(lists, epochs=2, schedule=BatchSchedule.constant(1)) == 2 * 12
    together = arguments(train_data_paths=[paths[0], fitting], pack_impl="pack_until_overflow")
    # Two of 4 tokens fit 9; each of 10 has a sample of its own. The last one of each dataset is still open.
    assert iterations_for_epochs(together, epochs=1, schedule=BatchSchedule.constant(1)) == (20 - 1) + (12 // 2 - 1)
    with pytest.raises(DataError, match="gives 0 samples"):
        iterations_for_epochs(
            arguments(data_path=paths[0], split="80,10,10", **WHOLE), epochs=1, schedule=BatchSchedule.constant(1)
        )


@pytest.mark.parametrize("pack_impl", ["packed", "unpacked", "pack_until_overflow"])
def test_a_step_is_the_same_whenever_it_is_reached_and_on_any_ranks(tmp_path, pack_impl):
    path = write_numbers(tmp_path / "numbers")
    args = arguments(data_path=path, split="1,0,0", pack_impl=pack_impl)
    train = build_datasets(args, train_samples=48, valid_samples=0, test_samples=0).train

    def steps(start, micro_batch, ranks, rank):
        plan = BatchPlan.constant(micro_batch, 8 // (micro_batch * ranks), ranks, rank)
        return [
            [batch.tokens for batch in step]
            for step in StepLoader(train, plan, vocab_size=999, start_step=start, steps=6 - start)
        ]

    whole = [torch.cat(step) for step in steps(0, 4, 1, 0)]
    assert len({tuple(row.tolist()) for step in whole for row in step}) > 20
    resumed = [torch.cat(step) for step in steps(3, 4, 1, 0)]
    assert all(torch.equal(old, new) for old, new in zip(whole[3:], resumed, strict=True))
    by_rank = [steps(0, 2, 2, rank) for rank in range(2)]
    for step, expected in enumerate(whole):
        rows = [by_rank[rank][step][micro] for micro in range(2) for rank in range(2)]
        assert torch.equal(torch.cat(rows), expected)


def write_numbers(path):
    """40 documents of 3 to 12 tokens, all different."""
    sizes = [3 + 7 * number % 10 for number in range(40)]
    with IndexedDatasetWriter(path, dtype="u2") as writer:
        for number, size in enumerate(sizes):
            writer.add_document(range(12 * number, 12 * number + size))
    return str(path)


def test_named_validation_sets_stand_beside_the_one_of_the_split(paths):
    sets = {"code": {"paths": paths[1:2]}, "mix": {"paths": paths[1:], "weights": [1, 4]}}
    args = arguments(data_path=paths[0], split="8,1,1", validation_sets=sets)
    valid = build_datasets(args, train_samples=4, valid_samples=10, test_samples=0).valid
    tokens = {name: [int(dataset[i][0]) for i in range(10)] for name, dataset in valid.items()}
    assert tokens == {"validation": [1] * 10, "code": [2] * 10, "mix": tokens["mix"]}
    assert np.bincount(tokens["mix"]).tolist() == [0, 0, 2, 8]
    assert {part: [source.weight for source in sources] for part, sources in open_sources(args).items()}["valid_mix"] == [1, 4]  # fmt: skip


def test_named_validation_sets_can_be_the_only_ones(paths):
    lists = {"train_data_paths": paths[:1], "valid_data_paths": [], "test_data_paths": []}
    args = arguments(**lists, validation_sets={"code": {"paths": paths[1:2]}})
    datasets = build_datasets(args, train_samples=4, valid_samples=5, test_samples=5)
    assert (list(datasets.valid), datasets.test) == (["code"], None)


@pytest.mark.parametrize("pack_impl", ["packed", "pack_until_overflow", "unpacked"])
def test_a_set_with_fewer_tokens_than_a_sample_is_read_again_and_again(tmp_path, paths, pack_impl):
    with IndexedDatasetWriter(tmp_path / "tiny", dtype=np.uint16) as writer:
        writer.add_document(np.array([5, 6, 7]))
    args = arguments(
        data_path=paths[0], validation_sets={"tiny": {"paths": [str(tmp_path / "tiny")]}}, pack_impl=pack_impl
    )
    tiny = build_datasets(args, train_samples=4, valid_samples=6, test_samples=0).valid["tiny"]
    samples = [tiny[i].tolist() for i in range(6)]
    if pack_impl == "packed":  # samples of 9 tokens begin 8 tokens apart in 5 6 7 5 6 7 ...
        assert all(sample == [5 + (sample[0] - 5 + place) % 3 for place in range(9)] for sample in samples)
        assert {sample[0] for sample in samples} == {5, 6, 7}
    else:
        repeats = 3 if pack_impl == "pack_until_overflow" else 1
        assert samples == [[5, 6, 7] * repeats + [-100] * (9 - 3 * repeats)] * 6


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_weights_by_documents_follow_the_documents_of_each_part(paths, alpha):
    """The formula, number by number: p_i = (n_i / n)^alpha normalised, w_i = p_i (1 - n_i / n) normalised."""
    named = {"both": {"paths": paths[:2]}}
    lists = {"train_data_paths": paths, "valid_data_paths": paths[1:], "test_data_paths": paths[:1]}
    args = arguments(**lists, validation_sets=named, weight_by_num_documents=True, weighted_sampler_alpha=alpha)
    counts = {"train": [20, 60, 20], "valid": [60, 20], "test": [20], "valid_both": [20, 60]}
    for part, sources in open_sources(args).items():
        documents = counts[part]
        raised = [(count / sum(documents)) ** alpha for count in documents]
        slow = [
            power / sum(raised) * (1 - count / sum(documents)) for power, count in zip(raised, documents, strict=True)
        ]
        slow = [weight / sum(slow) for weight in slow] if len(slow) > 1 else [1.0]
        assert [source.weight for source in sources] == pytest.approx(slow, rel=1e-12), part


def test_a_named_validation_set_has_label_data(tmp_path, paths):
    with IndexedDatasetWriter(tmp_path / "labels", dtype=np.int32) as writer:
        for _ in range(20):
            writer.add_document([-100] * 5 + [1] * 5)
    named = {"answers": {"paths": paths[:1], "label_paths": [str(tmp_path / "labels")]}}
    args = arguments(data_path=paths[1], validation_sets=named)
    sample = build_datasets(args, train_samples=4, valid_samples=3, test_samples=0).valid["answers"][0]
    assert sample.shape == (2, 9)
    assert set(sample[1].tolist()) == {-100, 1}
