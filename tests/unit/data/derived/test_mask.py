"""Masks by delimiter: what is masked, what is told, and that the tokens stay those of plain encoding."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from megatron.data.batch import PADDING
from megatron.data.derived.labels import NOT_TRAINED
from megatron.data.derived.mask import MaskRecipe, length_through, parse_sequence
from megatron.data.encoding.files import EncodedFiles, encode_files
from megatron.data.encoding.manifest import describe_recipe
from megatron.data.encoding.worker import EncodeRecipe
from megatron.data.indexed_dataset import IndexedDataset
from megatron.errors import DataError
from tests.unit.data.encoding.test_files import bytes_of, write_lines
from tests.unit.data.encoding.test_texts import CHARACTERS

COLON = tuple(b": ")


def masked(directory: Path, *texts: str, workers: int = 1, recipe: MaskRecipe | None = None) -> EncodedFiles:
    """Texts encoded into `x` in a directory."""
    path = write_lines(directory / "in.jsonl", *({"text": text} for text in texts))
    recipe = recipe or MaskRecipe(CHARACTERS, append_eod=True, mask_before=COLON)
    return encode_files([path], recipe, output_prefix=directory / "x", workers=workers)


def test_labels_without_loss_are_those_that_loaders_know() -> None:
    assert NOT_TRAINED == PADDING


@pytest.mark.parametrize(
    ("tokens", "sequence", "expected"),
    [
        ([5, 1, 2, 7], [1, 2], 3),
        ([1, 1, 2, 1, 2], [1, 2], 3),
        ([1, 1, 1, 2], [1, 1, 2], 4),
        ([1, 2], [1, 2], 2),
        ([2, 1], [1, 2], 0),
        ([1], [1, 2], 0),
        ([], [1], 0),
        ([3, 9], [9], 2),
    ],
)
def test_masked_is_everything_through_the_first_occurrence(
    tokens: list[int], sequence: list[int], expected: int
) -> None:
    assert length_through(np.array(tokens, np.uint16), sequence) == expected


@pytest.mark.parametrize("workers", [1, 2])
def test_labels_lie_beside_tokens_that_are_those_of_plain_encoding(workers: int, tmp_path: Path) -> None:
    texts = ["Q: A", "", "no delimiter", "é: é: é", "Q: "]
    encoded = masked(tmp_path, *texts, workers=workers)
    encode_files([tmp_path / "in.jsonl"], EncodeRecipe(CHARACTERS, append_eod=True), output_prefix=tmp_path / "plain")
    assert bytes_of(tmp_path / "x") == bytes_of(tmp_path / "plain")
    labels = IndexedDataset(tmp_path / "x_text_label_document")
    assert labels.dtype == np.int32
    e = [0xC3, 0xA9]
    assert [labels[i].tolist() for i in range(len(labels))] == [
        [-100, -100, -100, ord("A"), 0],
        [*b"no delimiter", 0],
        [-100, -100, -100, -100, *e, *b": ", *e, 0],
        [-100, -100, -100, 0],
    ]
    assert [(one.key, one.documents) for one in encoded.datasets] == [("text", 4), ("text_label", 4)]
    assert (encoded.counts.documents, encoded.counts.unmasked, encoded.counts.untrained) == (4, 1, 0)


def test_a_document_with_nothing_behind_the_delimiter_is_counted(tmp_path: Path) -> None:
    encoded = masked(tmp_path, "Q: ", "Q: A", recipe=MaskRecipe(CHARACTERS, mask_before=COLON))
    assert (encoded.counts.unmasked, encoded.counts.untrained) == (0, 1)


def test_several_keys_each_have_labels(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.jsonl", {"a": "1: 2", "b": "3"}, {"a": "4", "b": ""}, {"a": "5", "b": "6: 7"})
    encoded = encode_files(
        [path], MaskRecipe(CHARACTERS, keys=("a", "b"), mask_before=COLON), output_prefix=tmp_path / "x"
    )
    assert [one.key for one in encoded.datasets] == ["a", "a_label", "b", "b_label"]
    labels = [IndexedDataset(tmp_path / f"x_{key}_label_document") for key in ("a", "b")]
    assert [[one[i].tolist() for i in range(2)] for one in labels] == [
        [[-100, -100, -100, ord("2")], [ord("5")]],
        [[ord("3")], [-100, -100, -100, ord("7")]],
    ]


def test_keys_that_would_share_an_output_are_refused() -> None:
    recipe = MaskRecipe(CHARACTERS, keys=("a", "a_label"), mask_before=COLON)
    with pytest.raises(DataError, match='--jsonl-keys has "a_label", which is also the name'):
        recipe.build_encoder()


def test_labels_of_an_older_output_are_not_left_beside_a_new_one(tmp_path: Path) -> None:
    masked(tmp_path, "Q: A")
    before = bytes_of(tmp_path / "x")
    path = write_lines(tmp_path / "other.jsonl", {"text": "other"})
    with pytest.raises(
        DataError, match=r"x_text_label_document lies beside the output, belongs to an older x_text_doc"
    ):
        encode_files([path], EncodeRecipe(CHARACTERS), output_prefix=tmp_path / "x")
    assert bytes_of(tmp_path / "x") == before
    masked(tmp_path, "Q: B")
    assert bytes_of(tmp_path / "x") != before


def test_resume_with_another_sequence_would_be_refused() -> None:
    described = [describe_recipe(MaskRecipe(CHARACTERS, mask_before=ids).build_encoder()) for ids in (COLON, COLON[:1])]
    assert described[0] != described[1]
    assert json.loads(json.dumps(described[0])) == described[0]
    assert described[0]["--mask-before-token"] == [58, 32]


def test_the_sequence_is_a_comma_list_of_known_tokens() -> None:
    assert parse_sequence("0,1,1270") == parse_sequence("[0, 1, 1270]") == (0, 1, 1270)
    for words in ("", "1,,2", "x", "-1", "Answer:"):
        with pytest.raises(DataError, match="write token ids with commas between them"):
            parse_sequence(words)
    with pytest.raises(DataError, match="--mask-before-token has 999, but the tokenizer's ids end at"):
        MaskRecipe(CHARACTERS, mask_before=(58, 999)).build_encoder()
