"""Datasets know which file each document came from, and do not pretend to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from megatron.data.encoding.files import encode_files
from megatron.data.encoding.texts import encode_texts
from megatron.data.encoding.worker import EncodeRecipe
from megatron.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from megatron.data.inputs import pieces
from megatron.data.origins import Origin, Origins, joined, read_origins, write_origins
from tests.unit.data.encoding.test_texts import CHARACTERS, texts_of


@pytest.mark.parametrize("workers", [1, 2])
def test_each_document_names_its_file_and_its_place_there(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "SMALLEST_PIECE", 500)  # pieces of several files, and files of several pieces
    expected, paths = list[tuple[str, str, int]](), list[Path]()
    for number, count in enumerate([120, 1, 0, 3, 3, 200, 2]):
        paths.append(tmp_path / f"{number}.jsonl")
        texts = [f"{i} of file {number}" if i % 5 else "" for i in range(count)]
        lines = [json.dumps({"a": text, "b": "b" if i % 7 else ""}) for i, text in enumerate(texts)]
        paths[-1].write_text("".join(line + "\n" for line in lines) + ("{\n" if number == 3 else ""))
        kept = [
            text for i, text in enumerate(texts) if text and i % 7
        ]  # documents without tokens are left out everywhere
        expected += [(text, str(paths[-1]), i) for i, text in enumerate(kept)]
    recipe = EncodeRecipe(CHARACTERS, ("a", "b"))
    encode_files(paths, recipe, output_prefix=tmp_path / "x", workers=workers, on_error="skip")
    for key in ("a", "b"):
        origins = read_origins(IndexedDataset(tmp_path / f"x_{key}_document"))
        assert origins is not None
        found = [origins.of(document) for document in range(len(expected))]
        assert [(origin.path, origin.number) for origin in found] == [(path, i) for _, path, i in expected]
    assert texts_of(tmp_path / "x_a_document") == [text for text, _, _ in expected]
    content = (tmp_path / "x_a_document.sources.json").read_bytes()
    encode_files(paths, recipe, output_prefix=tmp_path / "x", workers=3 - workers, on_error="skip")
    assert (tmp_path / "x_a_document.sources.json").read_bytes() == content


def test_texts_from_memory_name_what_they_are(tmp_path: Path) -> None:
    texts = ["one", "", "two"]
    encode_texts(texts, EncodeRecipe(CHARACTERS), origin="the corpus x", output_prefix=tmp_path / "x")
    origins = read_origins(IndexedDataset(tmp_path / "x_text_document"))
    assert origins == Origins(("the corpus x",), (2,))
    assert origins.of(1) == Origin("the corpus x", 1)


def test_a_note_that_is_absent_damaged_or_another_dataset_s_is_none(tmp_path: Path) -> None:
    def write(tokens: int) -> IndexedDataset:
        with IndexedDatasetWriter(tmp_path / "x", dtype="u2") as writer:
            writer.add_document(range(tokens))
        return IndexedDataset(tmp_path / "x")

    assert read_origins(write(5)) is None
    path = tmp_path / "x.sources.json"
    write_origins(path, [("a", 1)], tokens=5)
    assert read_origins(IndexedDataset(tmp_path / "x")) == Origins(("a",), (1,))
    write_origins(path, [("a", 1)], tokens=6)
    assert read_origins(IndexedDataset(tmp_path / "x")) is None
    path.write_text("{")
    assert read_origins(IndexedDataset(tmp_path / "x")) is None
    write_origins(path, [("a", 1)], tokens=5)
    write(5)
    assert not path.exists(), "what is written anew has not the old origins"


def test_counts_of_one_file_are_joined() -> None:
    assert joined([("a", 1), ("a", 2), ("b", 0), ("a", 3)]) == [("a", 3), ("b", 0), ("a", 3)]
