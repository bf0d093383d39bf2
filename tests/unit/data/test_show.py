"""What is shown of documents and samples, and the lines it becomes, with and without colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from megatron.data.batch import PADDING, DocumentRules
from megatron.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from megatron.data.piece import Piece
from megatron.data.show import ShownToken, View, view_of_document, view_of_sample, views_of_packed_samples
from megatron.data.show_lines import lines_of, spell, visible
from megatron.errors import DataError
from megatron.tokenizer.char_level import CharLevelTokenizer

EOD = 0
PREFIX = Path("data/text")


def write(prefix: Path, documents: list[list[int]], dtype: str = "i4") -> IndexedDataset:
    with IndexedDatasetWriter(prefix, dtype=dtype) as writer:
        for document in documents:
            writer.add_document(document)
    return IndexedDataset(prefix)


def marks(view: View) -> str:
    return "".join(token.mark for token in view.tokens)


def printed(view: View, *, width: int = 80, ids: bool = False) -> list[str]:
    spelled = spell([token.number for token in view.tokens], CharLevelTokenizer(), ids=ids)
    return ["".join(text for text, _ in line) for line in lines_of(view, spelled, width=width)]


def test_a_document_with_its_labels(tmp_path: Path) -> None:
    text = write(tmp_path / "text", [[1], [5, 6, 7, 8]])
    labels = write(tmp_path / "labels", [[1], [-100, 6, -100, 9]])
    view = view_of_document(text, 1, labels)
    assert view.title == f"document 1 of {tmp_path / 'text'}"
    assert [(token.number, token.position) for token in view.tokens] == [(5, 0), (6, 1), (7, 2), (8, 3)]
    assert (marks(view), view.predicted) == ("-+-!", 1)
    assert marks(view_of_document(text, 1)) == "++++"
    with pytest.raises(DataError, match=r"there is no document 2 in .*text, which has 2 of them"):
        view_of_document(text, 2)


def test_a_sample_is_shown_as_training_reads_it() -> None:
    text = np.array([5, 6, EOD, 7, 8, EOD, 9, PADDING, PADDING])
    pieces = [Piece(PREFIX, 3, 2, 3), Piece(PREFIX, 8, 0, 3), Piece(PREFIX, 1, 0, 1)]
    plain = view_of_sample(text, pieces, title="sample")
    assert [token.position for token in plain.tokens] == [0, 1, 2, 3, 4, 5, 6]
    assert (marks(plain), plain.padding) == ("-++++++", 2)
    assert [token.notes for token in plain.tokens if token.notes] == [
        ("document 3 of data/text, from its token 2 on",),
        ("document 8 of data/text",),
        ("document 1 of data/text",),
    ]
    rules = DocumentRules(EOD, mask_loss=True, reset_positions=True, reset_attention=True)
    view = view_of_sample(text, pieces, title="sample", rules=rules)
    assert [token.position for token in view.tokens] == [0, 1, 2, 0, 1, 2, 0]
    assert marks(view) == "-++-++-"
    assert view.tokens[3].notes == ("document 8 of data/text", "positions and attention begin anew")
    assert view.tokens[6].notes == ("document 1 of data/text", "positions and attention begin anew")
    labels = np.array([5, PADDING, EOD, 7, PADDING, 3, 9, PADDING, PADDING])
    labelled = view_of_sample(np.stack([text, labels]), pieces, title="sample", rules=rules)
    assert marks(labelled) == "--+--!-"


def test_a_sample_beyond_all_reason_is_refused(tmp_path: Path) -> None:
    text = write(tmp_path / "text", [[1, 2, 3]])
    with pytest.raises(DataError, match=r"sample 99999999999 of 5 tokens is reached after 16666666666. passes over"):
        list(views_of_packed_samples(text, [99999999999], seq_length=5))


def test_packed_samples_of_a_dataset_have_the_borders_of_its_documents(tmp_path: Path) -> None:
    text = write(tmp_path / "text", [[10 * number + place for place in range(7)] for number in range(9)])
    for view in views_of_packed_samples(text, [0, 4, 20], seq_length=5, labels=text):  # several epochs
        assert len(view.tokens) == 6
        for before, token in zip(view.tokens, view.tokens[1:], strict=False):
            starts = token.number % 10 == 0
            assert starts == (token.notes == (f"document {token.number // 10} of {text.prefix}",))
            assert starts or token.number == before.number + 1
        assert view.tokens[0].notes
        assert marks(view) == "-+++++"
    with pytest.raises(DataError, match="holds no tokens"):
        list(views_of_packed_samples(write(tmp_path / "empty", []), [0], seq_length=5))


def test_lines_say_everything_without_colour() -> None:
    tokens = [*b"Why?\nAs it is"]
    shown = [
        ShownToken(token, position, "-" if position < 8 else "+", ("document 4 of d",) if position == 5 else ())
        for position, token in enumerate(tokens)
    ]
    assert printed(View("sample 7", tuple(shown), padding=1200)) == [
        "sample 7: 13 tokens, loss on 5",
        "       0 - W│h│y│?│⏎",
        "  document 4 of d",
        "       5 - A│s│·",
        "       8 + i│t│·│i│s",
        "  padding: 1,200 places without a token",
    ]


def test_lines_are_as_wide_as_asked_and_begin_where_positions_do() -> None:
    shown = [ShownToken(ord("x"), position, "+") for position in (*range(7), *range(3))]
    assert printed(View("t", tuple(shown)), width=19)[1:] == [
        "       0 + x│x│x│x",
        "       4 + x│x│x",
        "       0 + x│x│x",
    ]
    assert printed(View("t", tuple(shown[:2])), ids=True)[1:] == ["       0 + 120:x│120:x"]


def test_marks_have_colours() -> None:
    view = View("t", tuple(ShownToken(120, position, mark) for position, mark in enumerate("+-!")))
    _, *lines = lines_of(view, ["x", "x", "x"], width=80)
    assert [line[1] for line in lines] == [("x", "green"), ("x", "dim"), ("x", "bold red")]


def test_tokens_are_spelled_one_by_one() -> None:
    tokenizer = CharLevelTokenizer()
    assert spell([*"é\t\x1b[".encode(), 999, -100], tokenizer) == [
        "<195>",
        "<169>",
        "→",
        "\\x1b",
        "[",
        "<999>",
        "<-100>",
    ]
    assert spell([65, 999], tokenizer, ids=True) == ["65:A", "<999>"]
    assert spell([65, 999], None, ids=True) == ["65", "999"]
    assert visible(" a\r\n\u00a0世") == "·a␍⏎\\xa0世"
