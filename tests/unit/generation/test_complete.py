"""Every prompt gets the completion it would get alone, whatever it is decoded beside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from megatron.errors import DataError
from megatron.generation.complete import Completion, CompletionSettings, complete
from megatron.generation.decode import Decoder, DecodingStep
from megatron.tokenizer.base import Tokenizer
from megatron.tokenizer.char_level import VOCAB_SIZE, CharLevelTokenizer
from tests.unit.generation.test_decode import model

POSITIONS = 16


def completions_of(
    prompts: Sequence[str], *, maximum_tokens: int, tokenizer: Tokenizer | None = None, **changes: Any
) -> list[Completion]:
    decoder = Decoder(model(), vocab_size=61, max_positions=POSITIONS)
    settings = CompletionSettings(maximum_tokens, **changes)
    return complete(decoder, tokenizer or ShiftedTokenizer(), prompts, settings)


class ShiftedTokenizer(CharLevelTokenizer):
    """Characters from A on as the small vocabulary of the test model."""

    def tokenize(self, text: str) -> list[int]:
        return [token - 64 for token in super().tokenize(text)]

    def detokenize(self, ids: Sequence[int]) -> str:
        return super().detokenize([min(token + 64, VOCAB_SIZE) for token in ids])


class WordTokenizer(ShiftedTokenizer):
    """As word pieces have it: a space that begins a text is dropped."""

    def detokenize(self, ids: Sequence[int]) -> str:
        return "".join(f" {token}" for token in ids).removeprefix(" ")


def test_a_completion_begins_with_the_space_between_it_and_its_prompt() -> None:
    (completion,) = completions_of(["AB"], maximum_tokens=3, tokenizer=WordTokenizer())
    assert completion.tokens
    assert completion.text == "".join(f" {token}" for token in completion.tokens)


@pytest.mark.parametrize("maximum_tokens", [3, 8, 100])
def test_a_long_neighbour_does_not_cut_a_completion_short(maximum_tokens: int) -> None:
    prompts = ["AB", "C" * (POSITIONS - 1), "D", "E" * 9, "F" * (POSITIONS - 1)]
    together = completions_of(prompts, maximum_tokens=maximum_tokens)
    alone = [completions_of([prompt], maximum_tokens=maximum_tokens)[0] for prompt in prompts]
    assert [each.context for each in together] == prompts
    assert [(each.tokens, each.text, each.finished) for each in together] == [
        (each.tokens, each.text, each.finished) for each in alone
    ]
    assert len(together[0].tokens) == min(maximum_tokens, POSITIONS - 2) or together[0].finished


def test_one_prompt_that_is_too_long_is_found_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[object] = []
    decode_step = Decoder._step

    def count_step(decoder: Decoder, *inputs: Any, **options: Any) -> DecodingStep:
        decoded.append(inputs)
        return decode_step(decoder, *inputs, **options)

    monkeypatch.setattr(Decoder, "_step", count_step)
    completions_of(["A"], maximum_tokens=1)
    assert len(decoded) == 1
    with pytest.raises(DataError, match="at most 16"):
        completions_of(["A", "B" * POSITIONS], maximum_tokens=3)
    assert len(decoded) == 1
