"""What a faster engine cannot do is found in the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from megatron.tokenizer.fast import FastEncoder, build_batch_encoder
from megatron.tokenizer.fast_file import byte_characters, read_byte_pairs
from megatron.tokenizer.fast_merges import Merged, Unfit, prove_merges
from megatron.tokenizer.fast_patterns import GPT2, KNOWN, LLAMA3, QWEN2
from megatron.tokenizer.hf import HFTokenizer
from tests.unit.tokenizer.families import family


def change(key: str, value: Any, *, name: str = "gpt2") -> Callable[[], str]:
    """A tokenizer.json with another value at a path such as "model/dropout"."""

    def changed() -> str:
        file = json.loads(family(name).definition())
        *path, last = key.split("/")
        place = file
        for step in path:
            place = place[int(step)] if isinstance(place, list) else place[step]
        place[last] = value
        return json.dumps(file)

    return changed


SPLIT = "pre_tokenizer/pretokenizers/0"
REFUSED = [
    (change("truncation", {"max_length": 5}), "it has truncation"),
    (change("padding", {"length": 5}), "it has padding"),
    (change("something", 1), 'the file has "something"'),
    (change("normalizer", {"type": "Lowercase"}), "its normalizer is Lowercase"),
    (change("normalizer", {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "NFKC"}]}), "normalizer is NFKC"),
    (change("pre_tokenizer", None), "it has no pre-tokenizer"),
    (change("pre_tokenizer", {"type": "Whitespace"}), "its pre-tokenizer is Whitespace"),
    (change("pre_tokenizer/add_prefix_space", True), "it puts a space before every text"),
    (change("pre_tokenizer/use_regex", False), "does not cut exactly once"),
    (change(f"{SPLIT}/behavior", "Removed", name="qwen"), "does not cut into the matches"),
    (change(f"{SPLIT}/invert", True, name="qwen"), "does not cut into the matches"),
    (change(f"{SPLIT}/pattern", {"String": " "}, name="qwen"), "does not cut into the matches"),
    (change("pre_tokenizer/pretokenizers/1/use_regex", True, name="qwen"), "does not cut exactly once"),
    (change("post_processor", {"type": "BertProcessing"}), "its post-processor is BertProcessing"),
    (change("post_processor/single", [{"Sequence": {"id": "B"}}], name="llama3"), "repeats the text"),
    (change("model/type", "Unigram"), "its model is Unigram, not BPE"),
    (change("model/dropout", 0.1), "its model has dropout"),
    (change("model/byte_fallback", True), "its model has byte_fallback"),
    (change("model/end_of_word_suffix", "</w>"), "its model has end_of_word_suffix"),
    (change("model/continuing_subword_prefix", "##"), "its model has continuing_subword_prefix"),
    (change("model/new", 1), 'its model has "new"'),
    (change("model/vocab", {"a": 0, "b": 1}), "254 of the 256 bytes have no token"),
    (change("added_tokens/0/new", 1), "an added token of an unknown kind"),
    (change("added_tokens/0/content", "e\u0301", name="qwen"), "is not in NFC"),
]  # fmt: skip


@pytest.mark.parametrize(("definition", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_a_file_that_an_engine_cannot_serve_is_refused_with_the_reason(
    definition: Callable[[], str], reason: str
) -> None:
    with pytest.raises(Unfit, match=reason):
        read_byte_pairs(definition())


def test_what_is_read_of_each_family() -> None:
    assert [read_byte_pairs(family(name).definition()).pattern for name in ("gpt2", "neox", "llama3", "qwen")] == [
        GPT2,
        GPT2,
        LLAMA3,
        QWEN2,
    ]
    neox, llama3 = (read_byte_pairs(family(name).definition()) for name in ("neox", "llama3"))
    assert (neox.nfc, llama3.nfc) == (True, False)
    assert neox.added.ids["   "] == family("neox").tokenize("   ")[0]
    assert llama3.before == tuple(family("llama3").tokenize(""))
    assert llama3.after == ()
    assert neox.added.together


def test_an_unknown_pattern_is_served_by_no_engine() -> None:
    definition = change(f"{SPLIT}/pattern", {"Regex": r"\w+|\W+"}, name="qwen")()
    assert read_byte_pairs(definition).pattern not in KNOWN
    built = build_batch_encoder(HFTokenizer(definition, origin="changed"))
    assert built.engine == "HFTokenizer"


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
