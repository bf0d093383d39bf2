"""Each context rank keeps its part of what belongs to single tokens, and the documents whole."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from megatron.data.batch import DocumentRules, build_batch
from megatron.data.cut_sequence import cut_sequence
from megatron.mpu.groups import SINGLE, Group

BATCH = build_batch(
    torch.tensor([[1, 2, 0, 4, 5, 6, 0, 8, 9], [0, 1, 2, 3, 4, 5, 6, 7, 8]]),
    DocumentRules(0, mask_loss=True, reset_positions=True, reset_attention=True),
)


def rank(index: int, size: int) -> Group:
    return Group(index, size, tuple(range(size)))


def test_the_parts_are_contiguous_and_together_the_whole() -> None:
    parts = [cut_sequence(BATCH, rank(index, 4)) for index in range(4)]
    for name in ("tokens", "labels", "loss_mask", "position_ids"):
        pieces = [getattr(part, name) for part in parts]
        assert all(piece.is_contiguous() for piece in pieces)
        assert torch.equal(torch.cat(pieces, dim=1), getattr(BATCH, name))


def test_positions_are_those_in_the_document_and_documents_stay_whole() -> None:
    last = cut_sequence(BATCH, rank(1, 2))
    assert last.position_ids.tolist() == [[1, 2, 3, 0], [3, 4, 5, 6]]
    assert last.document_ids is BATCH.document_ids
    assert last.tokens.untyped_storage().nbytes() < BATCH.tokens.untyped_storage().nbytes(), "the rest can be freed"


def test_everything_is_cut_or_known_to_be_whole() -> None:
    """A field that is added to Batch has to be looked at."""
    batch = replace(BATCH, dropout_keys=torch.arange(2))
    cut = cut_sequence(batch, rank(0, 2))
    whole = {field.name for field in fields(batch) if getattr(cut, field.name).shape[1:] != (4,)}
    assert whole == {"document_ids", "dropout_keys"}


def test_one_rank_keeps_the_batch() -> None:
    assert cut_sequence(BATCH, SINGLE) is BATCH


def test_a_length_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="must be a multiple of 3"):
        cut_sequence(BATCH, rank(0, 3))
