"""Micro-batches from the text of samples: labels, padding, and what the end of a document changes."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from megatron.data.batch import PADDING, DocumentRules, build_batch

EOD = 0
TEXT = torch.tensor([[5, 0, 7, 8], [1, 2, 0, 0]])


def test_tokens_labels_positions_and_mask():
    batch = build_batch(TEXT)
    assert batch.tokens.tolist() == [[5, 0, 7], [1, 2, 0]]
    assert batch.labels.tolist() == [[0, 7, 8], [2, 0, 0]]
    assert batch.position_ids.tolist() == [[0, 1, 2]] * 2
    assert batch.loss_mask.tolist() == [[1, 1, 1]] * 2
    assert batch.document_ids is None
    assert (batch.tokens.dtype, batch.loss_mask.dtype) == (torch.int64, torch.float32)
    assert all(value.is_contiguous() for value in vars(batch).values() if value is not None)


def test_padding_is_token_0_and_never_predicted():
    batch = build_batch(torch.tensor([[5, 6, 7, PADDING, PADDING], [5, 6, 7, 8, 9]]))
    assert batch.tokens.tolist() == [[5, 6, 7, 0], [5, 6, 7, 8]]
    assert batch.labels.tolist() == [[6, 7, 0, 0], [6, 7, 8, 9]]
    assert batch.loss_mask.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]


def test_inputs_that_end_a_document_can_be_left_out_of_the_loss():
    batch = build_batch(TEXT, DocumentRules(EOD, mask_loss=True))
    assert batch.loss_mask.tolist() == [[1, 0, 1], [1, 1, 0]]
    assert batch.position_ids.tolist() == [[0, 1, 2]] * 2
    assert batch.document_ids is None


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=9, max_size=9), min_size=1, max_size=3), st.booleans(), st.booleans()
)
def test_behind_an_end_of_document_another_one_begins(rows, reset_positions, reset_attention):
    rules = DocumentRules(EOD, reset_positions=reset_positions, reset_attention=reset_attention)
    batch = build_batch(torch.tensor(rows), rules)
    positions, documents = [], []
    for row in rows:
        place = document = 0
        for token in row[:-1]:
            positions.append(place)
            documents.append(document)
            place += 1
            if token == EOD:
                document += 1
                place = 0 if reset_positions else place
    assert batch.position_ids.flatten().tolist() == positions
    assert batch.loss_mask.all()
    if reset_attention:
        assert batch.document_ids.flatten().tolist() == documents
    else:
        assert batch.document_ids is None


def test_padding_is_kept_apart_where_the_end_of_a_document_is_written():
    rules = DocumentRules(EOD, reset_positions=True, reset_attention=True)
    batch = build_batch(torch.tensor([[5, 6, EOD, PADDING, PADDING, PADDING]]), rules)
    assert batch.document_ids.tolist() == [[0, 0, 0, 1, 1]]  # although the token of padding has the same number
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1]]
    assert np.array_equal(batch.loss_mask[0], [1, 1, 0, 0, 0])
