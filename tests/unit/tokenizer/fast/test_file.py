"""What a faster engine cannot do is found in the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from megatron.tokenizer.fast.choice import build_batch_encoder
from megatron.tokenizer.fast.file import read_byte_pairs
from megatron.tokenizer.fast.merges import Unfit
from megatron.tokenizer.fast.patterns import GPT2, KNOWN, LLAMA3, QWEN2
from megatron.tokenizer.hf import HFTokenizer
from tests.unit.tokenizer.fast.families import family


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
