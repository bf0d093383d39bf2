"""Merging datasets: the order, what must agree, and that companions go along only when asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import DTypeLike

from megatron.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter, origins_path
from megatron.data.merge import find_datasets, merge_datasets
from megatron.data.origins import Origin, read_origins, write_origins
from megatron.errors import DataError


def write(prefix: Path, *documents: list[float], dtype: DTypeLike = np.uint16) -> Path:
    """A dataset of these documents."""
    with IndexedDatasetWriter(prefix, dtype=dtype) as writer:
        for document in documents:
            writer.add_document(document)
    return prefix


def read(prefix: Path) -> list[list[float]]:
    """The documents of a dataset."""
    dataset = IndexedDataset(prefix)
    return [dataset[i].tolist() for i in range(len(dataset))]


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Two datasets of text with labels and rewards, of which the first also has a file that says where it came from."""
    directory = tmp_path / "parts"
    write(directory / "b_text_document", [1, 2], [3])
    write(directory / "b_text_label_document", [-100, 2], [3], dtype=np.int32)
    write(directory / "b_text_reward_document", [1.0], [-1.0], dtype=np.float32)
    write(directory / "a_text_document", [4, 5, 6])
    write(directory / "a_text_label_document", [4, -100, 6], dtype=np.int32)
    write(directory / "a_text_reward_document", [0.5], dtype=np.float32)
    write_origins(origins_path(directory / "b_text_document"), [("x.jsonl", 1), ("y.jsonl", 1)], tokens=3)
    return directory


def test_datasets_are_put_together_in_the_order_given(parts: Path, tmp_path: Path) -> None:
    found = find_datasets([f"{parts}/b_text_document.bin", parts / "a_text_document"])
    (merged,) = merge_datasets(found.prefixes, tmp_path / "all_text_document")
    assert (merged.documents, merged.tokens) == (3, 6)
    assert read(merged.prefix) == [[1, 2], [3], [4, 5, 6]]
    assert IndexedDataset(merged.prefix).dtype == np.uint16
    assert {path.name for path in tmp_path.glob("all*")} == {
        f"all_text_document{suffix}" for suffix in (".bin", ".idx", ".sources.json")
    }


def test_a_merged_dataset_says_where_its_documents_came_from(parts: Path, tmp_path: Path) -> None:
    prefixes = [parts / "b_text_document", parts / "a_text_document", parts / "b_text_document"]
    merge_datasets(prefixes, tmp_path / "all")
    origins = read_origins(IndexedDataset(tmp_path / "all"))
    assert origins is not None
    assert [origins.of(i) for i in (0, 1, 2, 3)] == [
        Origin("x.jsonl", 0), Origin("y.jsonl", 0), Origin(str(parts / "a_text_document"), 0), Origin("x.jsonl", 0)
    ]  # fmt: skip


def test_of_a_directory_the_texts_come_in_the_order_of_their_names(parts: Path, tmp_path: Path) -> None:
    found = find_datasets([parts])
    assert [path.name for path in found.prefixes] == ["a_text_document", "b_text_document"]
    assert len(found.companions) == 4
    merge_datasets(found.prefixes, tmp_path / "all.idx")
    assert read(tmp_path / "all") == [[4, 5, 6], [1, 2], [3]]
    for name in ("a_text_document", "b_text_document"):
        for path in parts.glob(f"{name}.*"):
            path.unlink()
    assert [path.name for path in find_datasets([parts]).prefixes] == [
        *("a_text_label_document", "a_text_reward_document", "b_text_label_document", "b_text_reward_document")
    ]


def test_companions_are_merged_alike_when_asked_for(parts: Path, tmp_path: Path) -> None:
    merged = merge_datasets(find_datasets([parts]).prefixes, tmp_path / "all_text_document", with_companions=True)
    assert [(one.prefix.name, one.documents) for one in merged] == [
        ("all_text_document", 3),
        ("all_text_label_document", 3),
        ("all_text_reward_document", 3),
    ]
    assert read(merged[1].prefix) == [[4, -100, 6], [-100, 2], [3]]
    assert read(merged[2].prefix) == [[0.5], [1.0], [-1.0]]


def test_what_belongs_to_texts_is_neither_merged_with_them_nor_overwritten_by_them(parts: Path, tmp_path: Path) -> None:
    texts = [parts / "a_text_document", parts / "b_text_document"]
    before = {path: path.read_bytes() for path in parts.iterdir()}
    with pytest.raises(DataError, match=r"a_text_label_document belongs to .*a_text_document, which is another input"):
        merge_datasets([texts[0], parts / "a_text_label_document"], tmp_path / "all")
    with pytest.raises(DataError, match=r"b_text_label_document is the name of what belongs to .*b_text_document, an"):
        merge_datasets(texts, parts / "b_text_label_document")
    assert {path: path.read_bytes() for path in parts.iterdir()} == before


def test_companions_of_an_older_output_are_not_left_beside_a_new_one(parts: Path, tmp_path: Path) -> None:
    texts = find_datasets([parts]).prefixes
    output = tmp_path / "all_text_document"
    merge_datasets(texts, output, with_companions=True)
    with pytest.raises(
        DataError, match=r"all_text_label_document lies beside the output, belongs to an older all_text"
    ):
        merge_datasets(texts[::-1], output)
    assert read(output) == [[4, 5, 6], [1, 2], [3]]
    merge_datasets(texts[::-1], output, with_companions=True)
    assert read(output) == [[1, 2], [3], [4, 5, 6]]


def test_what_does_not_belong_together_is_refused_and_nothing_is_written(parts: Path, tmp_path: Path) -> None:
    texts = [parts / "a_text_document", parts / "b_text_document"]
    output = tmp_path / "all_text_document"
    before = set(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=r"b_text_label_document holds int32 tokens and cannot be added to uint16 ones"):
        merge_datasets([texts[0], parts / "b_text_label_document"], output)
    with pytest.raises(DataError, match="a_text_document is one of the inputs: choose another name"):
        merge_datasets(texts, texts[0])
    with pytest.raises(DataError, match=r"dataset .*c_text_document does not exist"):
        merge_datasets([parts / "c_text_document"], output)
    with pytest.raises(DataError, match="holds no datasets"):
        find_datasets([tmp_path])
    with pytest.raises(DataError, match="finds neither labels nor rewards beside"):
        merge_datasets([parts / "a_text_label_document"], output, with_companions=True)
    assert set(tmp_path.rglob("*")) == before
    write(parts / "a_text_label_document", [4, 6], dtype=np.int32)
    with pytest.raises(DataError, match=r"a_text_label_document is not of the documents of .*a_text_document"):
        merge_datasets(texts, output, with_companions=True)
    for path in parts.glob("a_text_reward_document.*"):
        path.unlink()
    with pytest.raises(DataError, match="a_text_document has no a_text_reward_document beside it, which others have"):
        merge_datasets(texts, output, with_companions=True)
    assert not list(tmp_path.glob("all*"))
