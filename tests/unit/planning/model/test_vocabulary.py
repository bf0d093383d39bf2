"""The size of the vocabulary comes from where it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from megatron.errors import ConfigError
from megatron.planning.model.vocabulary import ASSUMED, Vocabulary, find_vocabulary
from megatron.tokenizer.build import build_tokenizer
from tests.unit.planning.builders import arguments


def tokenizer_json(vocabulary: dict[str, int], added: dict[str, int]) -> str:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    tokens = [{"id": number, "content": content, **flags, "special": True} for content, number in added.items()]
    model = {"type": "WordLevel", "vocab": {"<|endoftext|>": 0, **vocabulary}, "unk_token": "<|endoftext|>"}
    return json.dumps({"version": "1.0", "model": model, "added_tokens": tokens})


def find(kind: str, file: Path | str | None = None, **keys: object) -> Vocabulary:
    return find_vocabulary(arguments(tokenizer_type=kind, vocab_file=None if file is None else str(file), **keys))


def varint(number: int) -> bytes:
    low, high = number & 127, number >> 7
    return bytes([low | 128]) + varint(high) if high else bytes([low])


def sentencepiece_model(pieces: int) -> bytes:
    """A model protocol buffer: pieces in field 1, trainer options (that hold a field 1 of their own) in field 2."""
    piece = b"\x0a\x03abc" + b"\x15\x00\x00\x80\x3f"
    trainer = b"\x0a\x04corp" + b"\x18\x01"
    return (
        b"".join(b"\x0a" + varint(len(piece)) + piece for _ in range(pieces)) + b"\x12" + varint(len(trainer)) + trainer
    )


def test_what_the_user_says_wins() -> None:
    args = arguments(padded_vocab_size=1000)
    assert find_vocabulary(args, given=77) == Vocabulary(77, "given")
    assert find_vocabulary(args) == Vocabulary(1000, "padded_vocab_size of the config")


def test_a_model_may_have_more_rows_than_its_tokenizer_has_tokens() -> None:
    args = arguments(vocab_size=600, tokenizer_type="CharLevelTokenizer", padded_vocab_size=1000)
    assert find_vocabulary(args) == find_vocabulary(args, given=77) == Vocabulary(600, "vocab_size of the config")
    assert find("HFTokenizer", vocab_size=77).size == 77, "how many tokens an absent tokenizer has is not known"
    with pytest.raises(ConfigError, match=r'"vocab_size" is 600, but the tokenizer has 601 entries'):
        find_vocabulary(args, given=601)
    with pytest.raises(ConfigError, match=r'"vocab_size" is 511, but the tokenizer has 512 entries'):
        find("CharLevelTokenizer", vocab_size=511)


@pytest.mark.parametrize(
    ("vocabulary", "added", "size"),
    [({"a": 1}, {}, 2), ({"a": 1}, {"<x>": 2, "<y>": 3}, 4), ({"a": 6}, {}, 7), ({"a": 1}, {"<|endoftext|>": 0}, 2)],
    ids=["plain", "added tokens", "a hole", "an added token of the vocabulary"],
)
def test_a_tokenizer_json_is_counted_as_the_tokenizer_counts_it(
    tmp_path: Path, vocabulary: dict[str, int], added: dict[str, int], size: int
) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text(tokenizer_json(vocabulary, added))
    args = arguments(tokenizer_type="HFTokenizer", vocab_file=str(file))
    found = find_vocabulary(args)
    assert found.size == build_tokenizer(args).vocab_size == size
    assert found.source == f"counted in {file}"
    assert not found.is_assumed
    assert find("HFTokenizer", tmp_path).size == size, "a folder that holds one will do"


def test_lists_of_pieces_are_counted_too(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps({"model": {"type": "Unigram", "vocab": [["a", -1.0], ["b", -2.0]]}}))
    assert find("HFTokenizer", file).size == 2


def test_a_vocab_json_is_counted(tmp_path: Path) -> None:
    file = tmp_path / "vocab.json"
    file.write_text(json.dumps({f"token{number}": number for number in range(321)}))
    assert find("GPT2BPETokenizer", file).size == 321


@pytest.mark.parametrize("pieces", [1, 300])
def test_the_pieces_of_a_sentencepiece_model_are_counted(tmp_path: Path, pieces: int) -> None:
    file = tmp_path / "tokenizer.model"
    file.write_bytes(sentencepiece_model(pieces))
    assert find("SPMTokenizer", file).size == pieces


@pytest.mark.parametrize("content", [b"", b"not json", b"[1, 2]", b'{"model": {}}', b'{"a": "b"}', b"\xff\xff"])
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model"])
def test_a_file_that_cannot_be_read_leaves_a_stated_assumption(tmp_path: Path, name: str, content: bytes) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    found = find("HFTokenizer", file)
    assert found.is_assumed
    assert found.size == ASSUMED["HFTokenizer"][0]
    assert f"{file} cannot be read here" in found.source


@pytest.mark.parametrize("kind", ASSUMED)
def test_without_a_file_the_size_is_assumed_and_says_so(kind: str) -> None:
    found = find(kind)
    assert found.is_assumed
    assert "assumed" in found.source
    assert "no vocab_file" in found.source


def test_tokenizers_without_files_are_known() -> None:
    args = arguments(tokenizer_type="CharLevelTokenizer")
    assert find_vocabulary(args) == Vocabulary(build_tokenizer(args).vocab_size, "CharLevelTokenizer")
    assert find("TiktokenTokenizer", "cl100k_base") == Vocabulary(100277, "tiktoken's cl100k_base")
