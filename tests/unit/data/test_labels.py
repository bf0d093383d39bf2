"""Label data: a second row that says which tokens are predicted, in every way of making samples; and what is no label data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from megatron.data.batch import PADDING, DocumentRules, build_batch
from megatron.data.datasets import build_datasets
from megatron.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from megatron.data.labels import open_labels
from megatron.data.loaders import StepLoader
from megatron.data.samplers import BatchPlan
from megatron.errors import DataError
from tests.unit.data.test_datasets import arguments

EOD = 0


def write(prefix: Path, documents: list[list[int]], dtype: str = "i4") -> str:
    with IndexedDatasetWriter(prefix, dtype=dtype) as writer:
        for document in documents:
            writer.add_document(document)
    return str(prefix)


def is_trained(token: int) -> bool:
    """A rule by the token alone, so that the labels of any sample are known without knowing where it comes from."""
    return token % 5 in (1, 2)


def labels_of(tokens: list[int]) -> list[int]:
    return [token if is_trained(token) else -100 for token in tokens]


@pytest.fixture
def pairs(tmp_path: Path) -> tuple[list[str], list[str]]:
    """Three datasets of documents of 1 to 14 tokens, all different, and their labels."""
    texts, labels = [], []
    for number, count in enumerate((30, 9, 50)):
        firsts = [1000 * number + 20 * document for document in range(count)]
        documents = [list(range(first, first + 1 + first % 14)) for first in firsts]
        texts.append(write(tmp_path / f"text{number}", documents, dtype="u2"))
        labels.append(write(tmp_path / f"label{number}", [labels_of(document) for document in documents]))
    return texts, labels


def with_labels(pairs: tuple[list[str], list[str]], count: int, **values: Any) -> Any:
    texts, labels = pairs
    paths = {f"{part}_data_paths": texts[:count] for part in ("train", "valid", "test")}
    return arguments(**{**paths, "train_label_data_paths": labels[:count], **values})


@pytest.mark.parametrize("pack_impl", ["packed", "pack_until_overflow", "unpacked"])
@pytest.mark.parametrize("count", [1, 3])
def test_every_sample_has_the_labels_of_its_tokens(
    pairs: tuple[list[str], list[str]], pack_impl: str, count: int
) -> None:
    weights = [3.0, 0.0, 1.0][:count]
    values = {"pack_impl": pack_impl, "train_data_weights": weights, "seq_length": 10, "mmap_warmup": True}
    wanted: dict[str, Any] = {"train_samples": 200, "valid_samples": 3, "test_samples": 0}  # several epochs
    labelled = build_datasets(with_labels(pairs, count, **values), **wanted)
    plain = build_datasets(with_labels(pairs, count, **values, train_label_data_paths=None), **wanted)
    assert labelled.train is not None
    assert plain.train is not None
    trained = 0
    for i in range(200):
        sample = labelled.train[i]
        assert sample.shape == (2, 11)
        assert sample.dtype == np.int64
        assert sample[0].tolist() == plain.train[i].tolist()
        assert sample[1].tolist() == labels_of(sample[0].tolist())
        trained += int((sample[1] != PADDING).sum())
    assert trained > 200


def test_parts_without_labels_are_read_without(pairs: tuple[list[str], list[str]]) -> None:
    datasets = build_datasets(with_labels(pairs, 1), train_samples=3, valid_samples=3, test_samples=3)
    assert datasets.train is not None
    assert datasets.train[0].shape == (2, 9)
    evaluated = build_datasets(
        with_labels(pairs, 1, train_label_data_paths=None, test_label_data_paths=pairs[1][:1]),
        train_samples=3,
        valid_samples=3,
        test_samples=3,
    )
    assert evaluated.test is not None
    assert evaluated.test[0].shape == (2, 9)
    assert evaluated.train is not None
    assert evaluated.train[0].shape == (9,)


def counted_by_hand(tokens: list[int], labels: list[int], rules: DocumentRules | None) -> list[int]:
    """For every place of a row but the last, whether the next token is predicted there."""
    counted = []
    for place in range(len(tokens) - 1):
        ends = tokens[place] == EOD and rules is not None and rules.mask_loss
        counted.append(int(labels[place + 1] != -100 and tokens[place + 1] != PADDING and not ends))
    return counted


@pytest.mark.parametrize("mask_loss", [None, False, True])
def test_a_token_is_predicted_where_its_label_and_the_documents_allow(mask_loss: bool | None) -> None:
    generator = np.random.default_rng(0)
    text = generator.integers(0, 4, (30, 12))
    text[::3, 8:] = PADDING
    labels = np.where(generator.random(text.shape) < 0.5, text, PADDING)
    rules = None if mask_loss is None else DocumentRules(EOD, mask_loss, reset_positions=True, reset_attention=True)
    batch = build_batch(torch.from_numpy(np.stack([text, labels], axis=1)), rules)
    plain = build_batch(torch.from_numpy(text), rules)
    by_hand = [counted_by_hand(*row, rules) for row in zip(text.tolist(), labels.tolist(), strict=True)]
    assert batch.loss_mask.tolist() == by_hand
    assert 0 < batch.loss_mask.sum() < plain.loss_mask.sum()
    for name, value in vars(plain).items():
        assert name == "loss_mask" or value is None or torch.equal(getattr(batch, name), value), name
    whole = build_batch(torch.from_numpy(np.stack([text, text], axis=1)), rules)
    assert torch.equal(whole.loss_mask, plain.loss_mask)


def test_documents_must_be_as_many_and_as_long(tmp_path: Path) -> None:
    text = IndexedDataset(write(tmp_path / "text", [[1, 2], [3, 4], [5, 6, 7]], dtype="u2"))
    fewer = write(tmp_path / "fewer", [[1, 2], [3, 4]])
    with pytest.raises(DataError, match=r"fewer has labels of 2 documents, .*text has 3: name the labels"):
        open_labels(fewer, text)
    shorter = write(tmp_path / "shorter", [[1, 2], [3], [5, 6, 7]])
    with pytest.raises(DataError, match=r"document 1 has 1 labels in .*shorter and 2 tokens in .*text: name"):
        open_labels(shorter, text)
    of_other_order = write(tmp_path / "other", [[1, 2], [5, 6, 7], [3, 4]])
    with pytest.raises(DataError, match=r"document 1 has 3 labels in .*other and 2 tokens in .*text: name"):
        open_labels(of_other_order, text)
    with pytest.raises(DataError, match=r"text\.bin holds uint16 values, which cannot be labels, as -100 stands"):
        open_labels(str(text.prefix), text)
    for dtype in ("i2", "i4", "i8"):
        assert len(open_labels(write(tmp_path / dtype, [[-100, 2], [3, 4], [-100, 6, 7]], dtype=dtype), text)) == 3


@pytest.mark.parametrize(("wrong", "told"), [(9, "says 9"), (-1, "says -1")])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_label_that_is_neither_the_token_nor_no_loss_ends_the_run(
    tmp_path: Path, wrong: int, told: str, workers: int
) -> None:
    documents = [[10 * document + place for place in range(9)] for document in range(12)]
    labels = [list(document) for document in documents]
    labels[7][4] = wrong
    args = arguments(
        train_data_paths=[write(tmp_path / "text", documents, dtype="u2")],
        train_label_data_paths=[write(tmp_path / "label", labels)],
        pack_impl="unpacked",
    )
    train = build_datasets(args, train_samples=12, valid_samples=0, test_samples=0).train
    assert train is not None
    loader = StepLoader(train, BatchPlan.constant(2, 2), vocab_size=999, steps=3, num_workers=workers)
    with pytest.raises(DataError, match=rf"document 7 of .*text has the token 74 where its label data {told}: a"):
        list(loader)


@pytest.mark.parametrize("place", [0, 4])
def test_a_wrong_label_at_the_border_of_a_document_is_that_documents(tmp_path: Path, place: int) -> None:
    documents = [[10 * document + each for each in range(5)] for document in range(12)]
    labels = [list(document) for document in documents]
    labels[7][place] = 99
    args = arguments(
        train_data_paths=[write(tmp_path / "text", documents, dtype="u2")],
        train_label_data_paths=[write(tmp_path / "label", labels)],
        seq_length=20,
    )
    train = build_datasets(args, train_samples=5, valid_samples=0, test_samples=0).train
    assert train is not None
    with pytest.raises(DataError, match=f"document 7 of .*text has the token {70 + place} where"):
        list(StepLoader(train, BatchPlan.constant(1, 1), vocab_size=999, steps=5))


def test_rewards_are_no_text(tmp_path: Path) -> None:
    args = arguments(train_data_paths=[write(tmp_path / "rewards", [[1], [0]], dtype="f4")])
    with pytest.raises(DataError, match="rewards holds float32 numbers, not tokens: name a dataset of text"):
        build_datasets(args, train_samples=2, valid_samples=0, test_samples=0)


def test_labels_are_within_the_vocabulary_if_the_text_is(tmp_path: Path) -> None:
    """An id outside is told as what it is: text of another tokenizer."""
    texts, labels = ([write(tmp_path / name, [[1, 2, 3, 77]] * 9)] for name in ("text", "label"))
    args = arguments(train_data_paths=texts, train_label_data_paths=labels, seq_length=3)
    train = build_datasets(args, train_samples=4, valid_samples=0, test_samples=0).train
    assert train is not None
    with pytest.raises(DataError, match="contains the token id 77, but the vocabulary has 50"):
        list(StepLoader(train, BatchPlan.constant(2, 2), vocab_size=50, steps=1))
