"""A row ends at a stop string wherever the borders of its tokens lie, and shows no text that is not certain."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from megatron.generation.growing_text import GrowingText, TextUntil, first_stop
from megatron.generation.rows import Completion, FinishReason, Row
from megatron.tokenizer.base import Tokenizer
from megatron.tokenizer.char_level import CharLevelTokenizer

TEXT = "naïve 你好 👩‍🚀 fin.\n"


class PieceTokenizer(CharLevelTokenizer):
    """Tokens are the pieces of bytes it is made with; 0 ends a document."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = [b"<eod>", *pieces]
        self.decoded = 0

    def detokenize(self, ids: Sequence[int]) -> str:
        self.decoded += len(ids)
        return b"".join(self._pieces[token] for token in ids).decode("utf-8", errors="replace")


class AllOrNothingTokenizer(PieceTokenizer):
    """As vocabularies with tokens for single bytes have it: one incomplete character makes all bytes beside it unreadable."""

    def detokenize(self, ids: Sequence[int]) -> str:
        data = b"".join(self._pieces[token] for token in ids)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "\ufffd" * len(data)


def pieces_of(text: str, *, seed: int, longest: int = 4) -> list[bytes]:
    """The bytes of a text, cut anywhere."""
    data, numbers, pieces = text.encode(), random.Random(seed), []
    while data:
        size = numbers.randint(1, longest)
        pieces.append(data[:size])
        data = data[size:]
    return pieces


def completed(
    pieces: Sequence[bytes], stop_strings: Sequence[str] = (), *, otherwise: FinishReason = "length"
) -> tuple[Completion, list[str]]:
    """What a row becomes that takes pieces as tokens, and the texts it showed meanwhile."""
    row = Row(PieceTokenizer(pieces), [], stop_strings=stop_strings, follow_text=True)
    shown = []
    for token in range(1, len(pieces) + 1):
        row.take(token, -float(token))
        shown.append(row.new_text)
        if row.ended:
            return row.completion(otherwise), shown
    return row.completion(otherwise), [*shown, row.new_text]


@pytest.mark.parametrize("kind", [PieceTokenizer, AllOrNothingTokenizer])
@pytest.mark.parametrize("prompt", ["", "好", "Tell me, 好 ", "好 seven"])
def test_text_arrives_in_whole_characters_however_tokens_cut_it(kind: type[PieceTokenizer], prompt: str) -> None:
    for seed in range(20):
        before = [bytes([byte]) for byte in prompt.encode()]
        pieces = [*before, *pieces_of(TEXT, seed=seed, longest=4 if kind is PieceTokenizer else 1)]
        growing = GrowingText(kind(pieces), range(1, len(before) + 1))
        shown = [growing.add(token) for token in range(len(before) + 1, len(pieces) + 1)]
        assert "".join(shown) + growing.rest() == TEXT
        assert not any("\ufffd" in text for text in shown)


def test_what_is_no_text_is_shown_as_such_without_waiting_for_ever() -> None:
    pieces = [b"ok", *[b"\xff"] * 50, *(bytes([byte]) for byte in "好".encode())]
    growing = GrowingText(PieceTokenizer(pieces), [])
    shown = [growing.add(token) for token in range(1, len(pieces) + 1)]
    assert "".join(shown) == "ok" + "\ufffd" * 50 + "好"
    assert shown[20] == "\ufffd"


def test_a_stop_string_is_found_wherever_tokens_begin_and_end() -> None:
    for seed in range(60):
        pieces = pieces_of(TEXT + "the end", seed=seed)
        completion, shown = completed(pieces, ["好 👩", "end"])
        assert (completion.text, completion.finish_reason) == ("naïve 你", "stop")
        assert "".join(shown) == completion.text
        data, kept = completion.text.encode(), b"".join(pieces[: len(completion.tokens)])
        assert kept.startswith(data)
        assert not b"".join(pieces[: len(completion.tokens) - 1]).startswith(data)
        assert completion.log_probabilities == [-float(token) for token in completion.tokens]
        assert completion.tokens + completion.ending == list(range(1, len(completion.tokens + completion.ending) + 1))


def test_a_token_with_text_before_a_stop_string_is_kept_and_the_others_are_not() -> None:
    completion, _ = completed([b"one", b" tw\n", b"\n", b"three"], ["\n\n"])
    assert (completion.text, completion.tokens, completion.ending) == ("one tw", [1, 2], [3])


def test_a_stop_string_that_only_the_end_makes_certain_is_found() -> None:
    row = Row(PieceTokenizer([b"a", b"\xe5"]), [], stop_strings=["\N{REPLACEMENT CHARACTER}"])
    for token in (1, 2, 0):
        row.take(token, 0.0)
    completion = row.completion("length")
    assert (completion.text, completion.finish_reason) == ("a", "stop")
    assert (completion.tokens, completion.ending) == ([1], [2, 0])


def test_the_first_stop_string_counts_when_a_token_holds_several() -> None:
    completion, _ = completed([b"a.b;c"], [";", "."])
    assert completion.text == "a"
    assert first_stop("abc", ["c", "bc", "x"]) == 1
    assert first_stop("abc", []) is None


def test_a_beginning_of_a_stop_string_is_shown_once_it_is_none() -> None:
    until = TextUntil(["<end>", "<e!"])
    assert [until.add(text) for text in ("a<", "e", "nx", "<e", "nd>")] == ["a", "", "<enx", "", ""]
    assert until.found
    completion, shown = completed([b"a", b"<e", b"n"], ["<end>"])
    assert (completion.text, completion.finish_reason, shown) == ("a<en", "length", ["a", "", "", "<en"])


def test_a_stop_string_before_an_incomplete_character_is_found_at_once() -> None:
    completion, shown = completed([b"a\n\xe5", b"\xa5\xbd"], ["\n"])
    assert (completion.text, completion.tokens, completion.finish_reason) == ("a", [1], "stop")
    assert shown == ["a"]  # at once, not when the character is whole


def test_the_cost_of_a_token_does_not_grow_with_the_text() -> None:
    costs = []
    for length in (100, 200):
        tokenizer = PieceTokenizer([b"ab", b"\xe5"])
        row = Row(tokenizer, [1], stop_strings=["never here"])
        for token in [1, 2] * (length // 2):
            row.take(token, 0.0)
        costs.append(tokenizer.decoded)
    assert costs[1] < 2.2 * costs[0]


@pytest.mark.parametrize("tokenizer", [CharLevelTokenizer()])
def test_an_end_of_document_is_no_token_of_the_completion(tokenizer: Tokenizer) -> None:
    row = Row(tokenizer, [65], stop_tokens=[66])
    for token in (67, tokenizer.eod, 68):
        row.take(token, -1.0)
    completion = row.completion("length")
    assert (completion.tokens, completion.text, completion.finish_reason, completion.ending) == ([67], "C", "eod", [0])
