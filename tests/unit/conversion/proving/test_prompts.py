"""What is compared: lengths at which a model begins to differ, as far as they can be reached."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from megatron.conversion.mapping.architecture import Architecture
from megatron.conversion.proving.prompts import TEXTS, build_prompts, compared_positions
from megatron.tokenizer.char_level import CharLevelTokenizer

SMALL = Architecture(
    num_layers=2,
    hidden_size=32,
    num_attention_heads=4,
    num_kv_heads=4,
    head_dim=8,
    mlp_width=64,
    vocab_size=512,
    max_position_embeddings=2048,
)


def lengths(parameters: int = 10**6, **settings: Any) -> set[int]:
    prompts, _ = build_prompts(replace(SMALL, **settings), None, parameters=parameters)
    return {len(prompt.tokens) for prompt in prompts}


def test_lengths_pass_every_border() -> None:
    common = {1, 2, 6, 9, 17, 64}
    assert lengths() == common
    assert lengths(sliding_window_width=1000) == common | {1009}
    scaling = {"type": "yarn", "factor": 8, "original_max_position_embeddings": 256}
    assert lengths(rope_scaling=scaling) == common | {265}
    assert lengths(pos_emb="learned") == common | {2048}


def test_no_prompt_is_longer_than_the_model_reads() -> None:
    prompts, _ = build_prompts(
        replace(SMALL, max_position_embeddings=12, sliding_window_width=10), CharLevelTokenizer(), parameters=1
    )
    assert max(len(prompt.tokens) + prompt.continued for prompt in prompts) == 12
    assert [prompt.continued for prompt in prompts if prompt.continued] == [6, 6]


def test_a_length_out_of_reach_is_said() -> None:
    settings = replace(SMALL, max_position_embeddings=10**6, sliding_window_width=500_000)
    prompts, said = build_prompts(settings, None, parameters=10**9)
    assert max(len(prompt.tokens) for prompt in prompts) == 64
    assert said == ["500,009 tokens, beyond the sliding window, were not tried: they take too much memory or time"]


def test_texts_go_through_the_tokenizer_and_ids_stay_in_the_vocabulary() -> None:
    prompts, _ = build_prompts(SMALL, CharLevelTokenizer(), parameters=1)
    assert prompts[0].tokens == tuple(TEXTS[0].encode())
    edges = next(prompt for prompt in prompts if prompt.name == "first and last ids")
    assert edges.tokens == (0, 1, 2, 509, 510, 511)
    assert all(0 <= number < 512 for prompt in prompts for number in prompt.tokens)


@pytest.mark.parametrize("length", [1, 2, 512, 513, 100_000])
def test_compared_positions_rise_and_end_with_the_last(length: int) -> None:
    positions = compared_positions(length).tolist()
    assert positions == sorted(set(positions))
    assert (positions[0], positions[-1]) == (0, length - 1)
    assert len(positions) == min(length, 512)
