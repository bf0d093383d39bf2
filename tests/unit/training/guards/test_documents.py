"""The documents of a micro-batch, in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from megatron.data.piece import Piece
from megatron.data.samplers import BatchPlan
from megatron.training.guards.documents import MOST_NAMED, describe_samples, documents_of


class Pieces:
    """A dataset whose sample i has the end of document i of one file and the begin of document i + 1, and a piece of another file."""

    def __len__(self) -> int:
        return 40

    def pieces_of(self, i: int) -> tuple[Piece, ...]:
        text, code = Path("data/text_document"), Path("data/code_document")
        return Piece(text, i, 7, 3), Piece(text, i + 1, 0, 4), Piece(code, 5, 0, 1)


def test_each_document_is_named_once_under_its_dataset() -> None:
    dataset: Any = Pieces()
    assert describe_samples(dataset, [2, 3]) == "data/text_document: documents 2, 3, 4; data/code_document: document 5"


def test_the_documents_are_those_of_the_rank_and_micro_batch() -> None:
    dataset: Any = Pieces()
    documents = documents_of(dataset, BatchPlan.constant(1, accumulation=2, data_parallel_size=2, data_rank=1))
    # Step 3 takes samples 12 to 15: micro-batches (12, 13) and (14, 15), of which this rank reads the second.
    assert documents(3, 0).startswith("data/text_document: documents 13, 14;")
    assert documents(3, 1).startswith("data/text_document: documents 15, 16;")


def test_many_documents_are_counted() -> None:
    dataset: Any = Pieces()
    assert f" and {31 - MOST_NAMED} more;" in describe_samples(dataset, range(30))
