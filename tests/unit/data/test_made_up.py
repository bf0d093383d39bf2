"""Generated text is the same everywhere, and its labels are labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from megatron.data.indexed_dataset import IndexedDataset, bin_path
from megatron.data.labels import open_labels
from megatron.data.made_up import DOCUMENTS, make_up_dataset
from megatron.tokenizer.char_level import CharLevelTokenizer


def test_a_dataset_of_text_with_labels_beside_it(tmp_path: Path) -> None:
    text = IndexedDataset(make_up_dataset(tmp_path, 0)[0])
    labels = open_labels(str(tmp_path / "labels0"), text)
    assert len(text) == DOCUMENTS
    for number in range(DOCUMENTS):
        tokens, targets = text[number], labels[number]
        trained = targets != -100
        assert 0 < trained.sum() < len(tokens)
        assert np.array_equal(targets[trained], tokens[trained])
        assert tokens[-1] == CharLevelTokenizer().eod
        assert set(CharLevelTokenizer().detokenize(tokens[:-1].tolist())) <= set("abcdefghijklmnopqrstuvwxyz ")


def test_it_follows_from_its_number_alone(tmp_path: Path) -> None:
    (first, _), (again, _), (other, _) = (
        make_up_dataset(tmp_path / name, number) for name, number in (("a", 1), ("b", 1), ("c", 2))
    )
    contents = [bin_path(prefix).read_bytes() for prefix in (first, again, other)]
    assert contents[0] == contents[1] != contents[2]
