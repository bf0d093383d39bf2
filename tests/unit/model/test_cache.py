"""The key-value cache keeps columns and masks, and decoding with it equals the full forward pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from megatron.model.cache import KeyValueCache
from megatron.model.sequential import SequentialModel
from tests.unit.model.builders import VARIANTS, VOCAB_SIZE, build_args, build_model, random_batch


def full_logits(model: SequentialModel, tokens: Tensor) -> Tensor:
    """[length, v] logits of one text [length], without a cache."""
    return model(tokens[None], torch.arange(len(tokens))[None])[0]


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_decoding_step_by_step_equals_the_full_forward_pass(variant: str) -> None:
    model = build_model(build_args(**VARIANTS[variant])).eval()
    tokens, _, _, position_ids = random_batch()
    expected = model(tokens, position_ids)
    cache = KeyValueCache(batch_size=2, max_length=16)
    steps = [
        tokens[:, :5],
        tokens[:, 5:8],
        *tokens[:, 8:].split(1, dim=1),
    ]  # a prompt, several tokens at once, single ones
    logits = [model(step, cache.next_position_ids(step.shape[1]), cache) for step in steps]
    torch.testing.assert_close(torch.cat(logits, dim=1), expected)


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_prompts_of_different_lengths_continue_as_each_would_alone(variant: str) -> None:
    model = build_model(build_args(**VARIANTS[variant])).eval()
    tokens, *_ = random_batch(rows=3)
    lengths = [7, 2, 5]
    padded = torch.zeros(3, 7, dtype=torch.int64)
    for row, length in enumerate(lengths):
        padded[row, 7 - length :] = tokens[row, :length]
    texts = [tokens[row, :length] for row, length in enumerate(lengths)]
    cache = KeyValueCache(batch_size=3, max_length=12, starts=7 - torch.tensor(lengths))
    logits = model(padded, cache.next_position_ids(7), cache)[:, -1, :VOCAB_SIZE]
    for _ in range(5):
        for row, text in enumerate(texts):
            torch.testing.assert_close(logits[row], full_logits(model, text)[-1, :VOCAB_SIZE])
        chosen = logits.argmax(dim=-1, keepdim=True)
        texts = [torch.cat((text, token)) for text, token in zip(texts, chosen, strict=True)]
        logits = model(chosen, cache.next_position_ids(1), cache)[:, -1, :VOCAB_SIZE]


@torch.no_grad()
def test_what_stands_in_padding_columns_does_not_matter() -> None:
    model = build_model(build_args(**VARIANTS["llama"])).eval()
    tokens, *_ = random_batch()
    results = []
    for filler in (0, 1):
        padded = tokens[:, :6].clone()
        padded[1, :4] = filler
        cache = KeyValueCache(batch_size=2, max_length=6, starts=torch.tensor([0, 4]))
        results.append(model(padded, cache.next_position_ids(6), cache)[:, -1])
    assert torch.equal(*results)


def test_positions_count_from_each_rows_start() -> None:
    cache = KeyValueCache(batch_size=2, max_length=8, starts=torch.tensor([0, 2]))
    assert cache.next_position_ids(4).tolist() == [[0, 1, 2, 3], [0, 0, 0, 1]]
    cache.extend(4)
    assert cache.next_position_ids(2).tolist() == [[4, 5], [2, 3]]


def test_a_prompt_without_padding_is_plainly_causal() -> None:
    cache = KeyValueCache(batch_size=2, max_length=8, starts=torch.tensor([0, 0]))
    cache.extend(4)
    assert cache.allowed is None
    cache.extend(2)
    assert cache.allowed is not None
    assert cache.allowed[0, 0].int().tolist() == [[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]]


def test_padding_columns_are_seen_by_themselves_only() -> None:
    cache = KeyValueCache(batch_size=2, max_length=8, starts=torch.tensor([0, 2]))
    cache.extend(3)
    assert cache.allowed is not None
    assert cache.allowed[:, 0].int().tolist() == [[[1, 0, 0], [1, 1, 0], [1, 1, 1]], [[1, 0, 0], [0, 1, 0], [0, 0, 1]]]


def test_more_columns_than_there_is_room_for_are_refused() -> None:
    cache = KeyValueCache(batch_size=1, max_length=4)
    cache.extend(3)
    with pytest.raises(ValueError, match=r"3 \+ 2 columns do not fit a key-value cache of 4"):
        cache.extend(2)
