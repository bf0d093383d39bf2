"""Faster engines never give other ids than the tokenizer."""

from __future__ import annotations

import functools
import json
import random
import sys
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from tokenizers import AddedToken, Tokenizer

from megatron.tokenizer.fast import choice
from megatron.tokenizer.fast.choice import build_batch_encoder
from megatron.tokenizer.fast.encoder import FastEncoder
from megatron.tokenizer.fast.file import byte_characters
from megatron.tokenizer.hf import HFTokenizer
from tests.unit.tokenizer.fast.families import HARD_TEXT, ODD, corpus, family
from tools.benchmark.tokenizer_families import FAMILIES

CASES = [(name, engine) for name in FAMILIES for engine in choice.ENGINES if (name, engine) != ("own", "gigatoken")]


@functools.cache
def encoder(name: str, engine: str) -> FastEncoder:
    built = build_batch_encoder(family(name), engines=[engine])
    assert isinstance(built, FastEncoder)
    assert built.engine == engine
    return built


@functools.cache
def expected(name: str) -> list[list[int]]:
    return family(name).tokenize_batch(corpus())


@functools.cache
def texts_with_runs() -> list[str]:
    """Runs of one character, of many lengths, alone and between others."""
    counts = (*range(1, 70), 127, 128, 129, 1000)
    runs = [character * count for character in " \n\t1a!-\u00e9\u65e5" for count in counts]
    return [before + run + after for run in runs for before, after in (("", ""), ("x", "y"), ("\n", " z"))]


@functools.cache
def texts_with_every_kind_of_character() -> list[str]:
    """The first and last characters of each range of one category, and of those between."""
    categories = [unicodedata.category(chr(code)) for code in range(sys.maxunicode + 1)]
    borders = [code for code in range(1, sys.maxunicode) if categories[code] != categories[code - 1]]
    codes = sorted({code for border in borders for code in (border - 1, border)} | set(range(0, sys.maxunicode, 997)))
    characters = [chr(code) for code in codes if categories[code] != "Cs"]
    return [f"a{c}a1{c}1!{c}! {c} \n{c}\n'{c}" for c in characters]


@functools.cache
def expected_of(texts: Callable[[], list[str]], name: str) -> list[list[int]]:
    return family(name).tokenize_batch(texts())


@pytest.mark.parametrize(("name", "engine"), CASES)
def test_a_corpus_gives_the_ids_of_the_tokenizer(name: str, engine: str) -> None:
    fast_encoder = encoder(name, engine)
    left = fast_encoder.left
    assert [ids.tolist() for ids in fast_encoder.encode_batch(corpus())] == expected(name)
    assert fast_encoder.left - left < len(corpus()) * 2 / 3


@pytest.mark.parametrize(("name", "engine"), CASES)
@settings(max_examples=300, deadline=None)
@given(text=HARD_TEXT)
def test_hard_texts_give_the_ids_of_the_tokenizer(name: str, engine: str, text: str) -> None:
    assert encoder(name, engine).encode_batch([text])[0].tolist() == family(name).tokenize(text)


@pytest.mark.parametrize(("name", "engine"), CASES)
def test_long_chains_of_odd_pieces_give_the_ids_of_the_tokenizer(name: str, engine: str) -> None:
    source = random.Random(f"{name} {engine}")
    pieces = [piece for piece in ODD if encoder(name, engine).is_safe(piece)]
    assert len(pieces) > len(ODD) / 2
    texts = ["".join(source.choices(pieces, k=source.randint(2, 60))) for _ in range(1500)]
    found = [ids.tolist() for ids in encoder(name, engine).encode_batch(texts)]
    assert found == family(name).tokenize_batch(texts)


@pytest.mark.parametrize(("name", "engine"), CASES)
def test_runs_of_any_length_give_the_ids_of_the_tokenizer(name: str, engine: str) -> None:
    found = [ids.tolist() for ids in encoder(name, engine).encode_batch(texts_with_runs())]
    assert found == expected_of(texts_with_runs, name)


@pytest.mark.parametrize(("name", "engine"), CASES)
def test_every_kind_of_character_gives_the_ids_of_the_tokenizer(name: str, engine: str) -> None:
    texts = texts_with_every_kind_of_character
    found = [ids.tolist() for ids in encoder(name, engine).encode_batch(texts())]
    assert found == expected_of(texts, name)


@pytest.mark.parametrize("name", ["gpt2", "llama3", "qwen"])
def test_gigatoken_is_behind_in_unicode(name: str) -> None:
    """The table of characters is needed: without it the ids would be others."""
    file = json.loads(family(name).definition())
    alphabet = byte_characters()
    across = [["a", alphabet[0xF0]], ["a", alphabet[0xE0]]]
    tokens = [*alphabet, *map("".join, across), "<|endoftext|>"]
    file["model"] |= {"vocab": {token: number for number, token in enumerate(tokens)}, "merges": across}
    file |= {"added_tokens": [], "post_processor": None}
    tokenizer = HFTokenizer(json.dumps(file), origin="changed")
    built = build_batch_encoder(tokenizer, engines=["gigatoken"])
    assert isinstance(built, FastEncoder)
    for text in ("a\u088f", "a\U000323b0", "a\U000323b0" * 100):
        assert not built.is_safe(text)
        assert built._fast(text).tolist() != tokenizer.tokenize(text)
        assert built.encode_batch([text])[0].tolist() == tokenizer.tokenize(text)


def test_text_that_is_normalised_is_left_to_the_tokenizer() -> None:
    fast_encoder = encoder("qwen", "gigatoken")
    assert fast_encoder.is_safe("caf\u00e9 \U0001f642")
    for text in ("cafe\u0301", "\u0958", "\u0378", "\U00011383\U000113c9", "\u0f74\u0f71"):
        assert not fast_encoder.is_safe(text)
        assert fast_encoder.encode_batch([text])[0].tolist() == family("qwen").tokenize(text)
    assert encoder("gpt2", "gigatoken").is_safe("cafe\u0301")


@pytest.mark.parametrize("engine", choice.ENGINES)
def test_half_a_surrogate_pair_is_refused_as_by_the_tokenizer(engine: str) -> None:
    with pytest.raises(Exception) as slow:  # the point is that both are the same
        family("gpt2").tokenize_batch(["a\ud800"])
    with pytest.raises(type(slow.value)):
        encoder("gpt2", engine).encode_batch(["fine", "a\ud800"])


@pytest.mark.parametrize("engine", choice.ENGINES)
@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word"])
def test_added_tokens_that_reach_beyond_themselves_are_left_to_the_tokenizer(engine: str, flag: str) -> None:
    raw = Tokenizer.from_str(family("gpt2").definition())
    raw.add_tokens([AddedToken("<mask>", **{flag: True}), AddedToken("<m", normalized=False)])
    tokenizer = HFTokenizer(raw.to_str(), origin="changed")
    built = build_batch_encoder(tokenizer, engines=[engine])
    assert isinstance(built, FastEncoder)
    texts = ["a <mask> b", "a<mask>b", " <mask>  ", "a <m> b", "<m<mask><m"]
    assert [ids.tolist() for ids in built.encode_batch(texts)] == tokenizer.tokenize_batch(texts)
    assert built.left == 4


@pytest.mark.parametrize("engine", choice.ENGINES)
@pytest.mark.parametrize("twice", [False, True])
def test_added_tokens_that_overlap_are_found_as_by_the_tokenizer(engine: str, twice: bool) -> None:
    """Once for all of them, or twice: first for those that are not normalised, which share characters with the others."""
    raw = Tokenizer.from_str(family("gpt2").definition())
    for content in ("ab", "abc", "bcb", "cc", "cca", "kkk", "kkkkk", " a", "  "):
        raw.add_tokens([AddedToken(content, normalized=not (twice and content in ("bcb", "cca")))])
    tokenizer = HFTokenizer(raw.to_str(), origin="changed")
    built = build_batch_encoder(tokenizer, engines=[engine])
    assert isinstance(built, FastEncoder)
    assert built.blueprint.added.together is not twice
    source = random.Random(0)
    texts = ["".join(source.choices("abck ", k=source.randint(0, 12))) for _ in range(5000)]
    assert [ids.tolist() for ids in built.encode_batch(texts)] == tokenizer.tokenize_batch(texts)
    assert built.left == 0


def test_tokens_that_only_a_whole_piece_becomes_are_found() -> None:
    for ignore_merges in (True, False):
        file = json.loads(family("llama3").definition())
        file["model"]["ignore_merges"] = ignore_merges
        file["model"]["vocab"]["\u0120qzqzqz"] = 9000
        tokenizer = HFTokenizer(json.dumps(file), origin="changed")
        texts = ["a qzqzqz", " qzqzqzq", "qzqzqz qzqzqz qzqzqz1"]
        assert (9000 in tokenizer.tokenize(texts[0])) == ignore_merges
        for engine in choice.ENGINES:
            built = build_batch_encoder(tokenizer, engines=[engine])
            assert built.engine == engine
            assert [ids.tolist() for ids in built.encode_batch(texts)] == tokenizer.tokenize_batch(texts)


def test_gigatoken_is_renewed_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from megatron.tokenizer.fast import with_gigatoken

    monkeypatch.setattr(with_gigatoken, "RENEWED_AFTER", 1000)
    built = build_batch_encoder(family("gpt2"), engines=["gigatoken"])
    assert isinstance(built, FastEncoder)
    first = built._engine._engine  # type: ignore[attr-defined]
    assert [ids.tolist() for ids in built.encode_batch(corpus()[:3])] == expected("gpt2")[:3]
    assert built._engine._engine is not first  # type: ignore[attr-defined]
