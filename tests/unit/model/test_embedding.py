"""The embedding looks up tokens, adds positions, drops in training, and turns batch-first into sequence-first."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from megatron.model.embedding import Embedding
from tests.unit.model.builders import build_args, build_model, dropout_keys, random_batch

TOKENS, _, _, POSITION_IDS = random_batch()


def build_embedding(**settings: Any) -> Embedding:
    embedding = build_model(build_args(**settings)).layer(0)
    assert isinstance(embedding, Embedding)
    return embedding


def test_hidden_states_are_sequence_first_rows_of_both_tables() -> None:
    embedding = build_embedding(pos_emb="learned")
    words, positions = embedding.word_embeddings.weight, embedding.position_embeddings.weight
    stream = embedding(TOKENS, POSITION_IDS)
    torch.testing.assert_close(stream.hidden[3, 1], words[TOKENS[1, 3]] + positions[3])
    assert stream.hidden.shape == (16, 2, 32)
    assert stream.position_ids is POSITION_IDS


@pytest.mark.parametrize("pos_emb", ["rotary", "none"])
def test_other_position_schemes_add_nothing(pos_emb: str) -> None:
    embedding = build_embedding(pos_emb=pos_emb)
    assert torch.equal(embedding(TOKENS, POSITION_IDS).hidden[3, 1], embedding.word_embeddings.weight[TOKENS[1, 3]])
    assert [name for name, _ in embedding.named_parameters()] == ["word_embeddings.weight"]


def test_dropout_acts_in_training_only() -> None:
    embedding = build_embedding(hidden_dropout=0.5)
    keys = dropout_keys()
    stream = embedding(TOKENS, POSITION_IDS, None, keys)
    assert 0.4 < (stream.hidden == 0).float().mean().item() < 0.6
    assert stream.dropout_keys is keys
    assert (embedding.eval()(TOKENS, POSITION_IDS).hidden != 0).all()
