"""Every prompt gets the completion it would get alone, whatever it is decoded beside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from megatron.errors import DataError
from megatron.generation.complete import CompletionSettings, complete
from megatron.generation.decode import Decoder, DecodingStep
from megatron.generation.rows import Completion
from megatron.generation.sampling import SamplingSettings
from megatron.tokenizer.base import Tokenizer
from megatron.tokenizer.char_level import VOCAB_SIZE, CharLevelTokenizer
from tests.unit.generation.test_decode import model

POSITIONS = 16


def completions_of(
    prompts: Sequence[str], *, maximum_tokens: int, tokenizer: Tokenizer | None = None, **changes: Any
) -> list[Completion]:
    decoder = Decoder(changes.pop("network", None) or model(), vocab_size=61, max_positions=POSITIONS)
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
    assert [each.prompt for each in together] == prompts
    assert [(each.tokens, each.text, each.finish_reason) for each in together] == [
        (each.tokens, each.text, each.finish_reason) for each in alone
    ]
    reasons = {each.finish_reason for each in together if not each.finished}
    assert reasons == {3: {"length", "context"}, 8: {"length", "context"}, 100: {"context"}}[maximum_tokens]
    assert len(together[0].tokens) == min(maximum_tokens, POSITIONS - 2) or together[0].finished


def test_a_sample_depends_on_its_number_and_not_on_what_it_is_decoded_beside() -> None:
    prompts = ["AB", "C" * (POSITIONS - 1), "D", "E" * 9, "AB"]  # which are decoded in three batches
    decoder = Decoder(model(), vocab_size=61, max_positions=POSITIONS)
    settings = CompletionSettings(8, SamplingSettings(temperature=1.0), seed=3)
    together = complete(decoder, ShiftedTokenizer(), prompts, settings, first_sample=5)
    for number, (prompt, sample) in enumerate(zip(prompts, together, strict=True), start=5):
        (alone,) = complete(decoder, ShiftedTokenizer(), [prompt], settings, first_sample=number)
        assert alone.tokens == sample.tokens
    assert together[0].tokens != together[-1].tokens


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


def test_log_probabilities_are_the_models_own_whatever_is_sampled() -> None:
    settings = {"sampling": SamplingSettings(temperature=0.7, top_k=5), "keep_logits": True}
    for completion in completions_of(["AB", "DEF"], maximum_tokens=4, **settings):
        assert len(completion.log_probabilities) == len(completion.logits) == len(completion.tokens)
        for token, found, logits in zip(
            completion.tokens, completion.log_probabilities, completion.logits, strict=True
        ):
            assert found == pytest.approx(float(logits.log_softmax(-1)[token]), abs=1e-6)


@pytest.mark.parametrize("sampling", [SamplingSettings(), SamplingSettings(temperature=1.0, top_p=0.9)])
def test_a_model_that_computes_nan_is_told_and_no_text_is_made_of_it(sampling: SamplingSettings) -> None:
    network = model()
    with torch.no_grad():
        network.get_parameter("5.norm.weight")[3] = torch.nan
    with pytest.raises(DataError, match="the model computes NaN for the next token"):
        completions_of(["AB"], maximum_tokens=3, sampling=sampling, network=network)


def test_a_stop_token_ends_one_row_and_its_neighbours_go_on() -> None:
    free = completions_of(["AB", "DEF"], maximum_tokens=6)
    stop = free[0].tokens[2]
    first, second = completions_of(["AB", "DEF"], maximum_tokens=6, stop_tokens=(stop,))
    before = free[0].tokens[: free[0].tokens.index(stop)]
    assert (first.tokens, first.finish_reason, first.ending) == (before, "stop", [stop])
    assert len(first.log_probabilities) == len(before)
    if stop not in free[1].tokens:
        assert second.tokens == free[1].tokens


def test_a_batch_ends_when_all_its_rows_have(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[object] = []
    decode_step = Decoder._step

    def count_step(decoder: Decoder, *inputs: Any, **options: Any) -> DecodingStep:
        steps.append(inputs)
        return decode_step(decoder, *inputs, **options)

    free = completions_of(["AB", "DEF"], maximum_tokens=8)
    monkeypatch.setattr(Decoder, "_step", count_step)
    last = {each.tokens[2] for each in free}
    stopped = completions_of(["AB", "DEF"], maximum_tokens=8, stop_tokens=tuple(last))
    assert {each.finish_reason for each in stopped} == {"stop"}
    assert len(steps) == 1 + max(len(each.tokens) for each in stopped) < 8


def test_a_stop_string_over_several_tokens_is_no_part_of_a_completion() -> None:
    (free,) = completions_of(["AB"], maximum_tokens=8)
    stop = free.text[3:5]
    assert len(stop) == 2
    (stopped,) = completions_of(["AB"], maximum_tokens=8, stop_strings=(stop,), keep_logits=True)
    cut = free.text.index(stop)
    assert (stopped.text, stopped.tokens, stopped.finish_reason) == (free.text[:cut], free.tokens[:cut], "stop")
    assert stopped.tokens + stopped.ending == free.tokens[: cut + 2]
    assert len(stopped.log_probabilities) == len(stopped.logits) == cut


def test_one_beginning_of_a_document_stands_for_an_empty_prompt() -> None:
    class Ending(ShiftedTokenizer):
        eod = 7

    (completion,) = completions_of([""], maximum_tokens=2, tokenizer=Ending())
    assert completion.prompt_tokens == (7,)


@pytest.mark.parametrize(("maximum_tokens", "reason"), [(5, "length"), (6, "length"), (7, "context")])
def test_a_completion_that_fills_the_last_position_has_all_its_tokens(maximum_tokens: int, reason: str) -> None:
    (completion,) = completions_of(["A" * (POSITIONS - 6)], maximum_tokens=maximum_tokens)
    assert (len(completion.tokens), completion.finish_reason) == (min(maximum_tokens, 6), reason)
