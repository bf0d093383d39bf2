"""Whether merging by ids gives what merging by the list gives is told apart."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from megatron.tokenizer.fast.choice import build_batch_encoder
from megatron.tokenizer.fast.encoder import FastEncoder
from megatron.tokenizer.fast.file import byte_characters
from megatron.tokenizer.fast.merges import Merged, Unfit, prove_merges
from megatron.tokenizer.hf import HFTokenizer
from tests.unit.tokenizer.fast.families import family


def ids_of(*tokens: str) -> dict[bytes, int]:
    return {token.encode(): number for number, token in enumerate(tokens)}


def pairs(*merges: str) -> list[tuple[bytes, bytes]]:
    return [(first.encode(), second.encode()) for first, second in (merge.split() for merge in merges)]


def test_merges_in_the_order_of_ids_are_proven() -> None:
    merged = prove_merges(ids_of("a", "b", "c", "ab", "abc"), pairs("a b", "ab c"))
    assert merged == Merged({b"ab": (b"a", b"b"), b"abc": (b"ab", b"c")}, frozenset())


def test_merges_in_another_order_than_ids_are_refused() -> None:
    with pytest.raises(Unfit, match="the order of its ids"):
        prove_merges(ids_of("a", "b", "c", "ab", "bc"), pairs("b c", "a b"))


def test_a_token_that_would_be_merged_from_other_parts_is_refused() -> None:
    """By ids "a" and "bc" become "abc"; by the list they never do."""
    with pytest.raises(Unfit, match="do not follow from its tokens"):
        prove_merges(ids_of("a", "b", "c", "bc", "ab", "abc"), pairs("b c", "a b", "ab c"))


def test_a_token_that_merging_never_reaches_is_found() -> None:
    merged = prove_merges(ids_of("a", "b", "c", "d", "bc", "ab", "cd", "abcd"), pairs("b c", "a b", "c d", "ab cd"))
    assert merged.unreached == {b"abcd"}


@st.composite
def merge_lists(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Merges of random pairs of tokens made so far, over few letters, so that they get in each other's way."""
    tokens, merges = ["a", "b", "c"], list[tuple[str, str]]()
    for _ in range(draw(st.integers(1, 9))):
        pair = (draw(st.sampled_from(tokens)), draw(st.sampled_from(tokens)))
        if pair not in merges and len("".join(pair)) <= 8:
            merges.append(pair)
            if "".join(pair) not in tokens:
                tokens.append("".join(pair))
    return merges


def merge_by_rank(text: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """The definition: of all neighbours whose bytes are a token those of the smallest id, the left one of equals, again and again."""
    parts = [text[i : i + 1] for i in range(len(text))]
    while True:
        found = [(ranks[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in ranks]
        if not found:
            return parts
        i = min(found)[1]
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


@settings(max_examples=500, deadline=None)
@given(merges=merge_lists())
def test_the_parts_of_every_token_are_those_of_merging_it_alone(merges: list[tuple[str, str]]) -> None:
    listed = [(first.encode(), second.encode()) for first, second in merges]
    ids = ids_of("a", "b", "c", *dict.fromkeys("".join(pair) for pair in merges))
    parts, unreached, ranks = dict[bytes, tuple[bytes, ...]](), set[bytes](), dict[bytes, int]()
    for token in dict.fromkeys(first + second for first, second in listed):
        reached = tuple(merge_by_rank(token, ranks))
        if len(reached) == 2:
            parts[token], ranks[token] = reached, ids[token]
        else:
            unreached.add(token)
    try:
        merged = prove_merges(ids, listed)
    except Unfit as reason:
        assume("follow" in str(reason))
        assert not set(parts.values()) <= set(listed)
        return
    assert set(parts.values()) <= set(listed)
    assert (merged.parts, merged.unreached) == (parts, unreached)


@pytest.mark.parametrize("engine", ["gigatoken", "tiktoken"])
@pytest.mark.parametrize("ignore_merges", [False, True])
@settings(max_examples=200, deadline=None)
@given(merges=merge_lists(), texts=st.lists(st.text("abc", max_size=24), min_size=5, max_size=12))
def test_merges_that_are_proven_give_the_same_ids(
    engine: str, ignore_merges: bool, merges: list[tuple[str, str]], texts: list[str]
) -> None:
    file = json.loads(family("gpt2").definition())
    tokens = [*byte_characters(), *dict.fromkeys("".join(pair) for pair in merges), "<|endoftext|>"]
    file["model"] |= {
        "vocab": {token: number for number, token in enumerate(tokens)},
        "merges": [list(p) for p in merges],
    }
    file["model"]["ignore_merges"] = ignore_merges
    file["added_tokens"] = []
    tokenizer = HFTokenizer(json.dumps(file), origin="made up")
    built = build_batch_encoder(tokenizer, engines=[engine])
    assume(isinstance(built, FastEncoder))
    assert [ids.tolist() for ids in built.encode_batch(texts)] == tokenizer.tokenize_batch(texts)
