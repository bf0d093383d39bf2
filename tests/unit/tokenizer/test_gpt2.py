"""GPT-2's byte-level BPE, from its two files or from a Hugging Face directory: the ids of an independent implementation."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import regex
import tiktoken
from hypothesis import given, settings
from tiktoken.load import data_gym_to_mergeable_bpe_ranks

from megatron.errors import DataError
from megatron.planning.model.vocabulary import find_vocabulary
from megatron.tokenizer.base import Tokenizer, TokenizerSettings
from megatron.tokenizer.build import build_tokenizer
from megatron.tokenizer.hf import HFTokenizer
from tests.unit.planning.builders import arguments
from tests.unit.tokenizer.small import ANY_TEXT, END_OF_TEXT, GPT2_PIECES, TEXTS, byte_characters, gpt2_files


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> TokenizerSettings:
    return gpt2_files(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="module")
def gpt2(files: TokenizerSettings) -> Tokenizer:
    return build_tokenizer(files)


class SlowBPE:
    """Byte-level BPE as the paper's code does it: merge the pair of the lowest rank everywhere, until no pair has one."""

    def __init__(self, files: TokenizerSettings) -> None:
        assert files.vocab_file is not None
        assert files.merge_file is not None
        self.vocabulary = json.loads(Path(files.vocab_file).read_text())
        lines = Path(files.merge_file).read_text().splitlines()[1:]
        self.ranks = {tuple(line.split()): rank for rank, line in enumerate(lines)}
        self.characters = byte_characters()

    def tokenize(self, text: str) -> list[int]:
        return [
            self.vocabulary[token]
            for piece in regex.findall(GPT2_PIECES, text)
            for token in self.merged(piece.encode())
        ]

    def merged(self, piece: bytes) -> list[str]:
        parts = [self.characters[byte] for byte in piece]
        while pairs := [pair for pair in pairwise(parts) if pair in self.ranks]:
            best, merged, i = min(pairs, key=lambda pair: self.ranks[pair]), [], 0
            while i < len(parts):
                width = 2 if tuple(parts[i : i + 2]) == best else 1
                merged.append("".join(parts[i : i + width]))
                i += width
            parts = merged
        return parts


@settings(deadline=None, max_examples=300)
@given(text=ANY_TEXT)
def test_the_ids_are_those_of_the_slow_implementation_and_lead_back(
    text: str, gpt2: Tokenizer, files: TokenizerSettings
) -> None:
    ids = gpt2.tokenize(text)
    assert ids == SlowBPE(files).tokenize(text)
    assert gpt2.detokenize(ids) == text


def test_the_texts_are_worth_the_comparison(gpt2: Tokenizer) -> None:
    assert all(max(gpt2.tokenize(text)) > 255 for text in TEXTS[:2]), "merges are used"


@settings(deadline=None)
@given(text=ANY_TEXT)
def test_the_ids_are_those_of_tiktoken_with_the_same_files(
    text: str, gpt2: Tokenizer, files: TokenizerSettings
) -> None:
    assert gpt2.tokenize(text) == reference_encoding(files).encode_ordinary(text)


def reference_encoding(files: TokenizerSettings) -> tiktoken.Encoding:
    """tiktoken's own reading of a vocab.json and a merges.txt."""
    ranks = data_gym_to_mergeable_bpe_ranks(str(files.merge_file), str(files.vocab_file))
    return tiktoken.Encoding(
        name="small", pat_str=GPT2_PIECES, mergeable_ranks=ranks, special_tokens={END_OF_TEXT: len(ranks)}
    )


def test_the_end_of_a_document_has_the_last_id_and_is_plain_text_within_one(gpt2: Tokenizer) -> None:
    assert gpt2.eod == gpt2.vocab_size - 1
    assert gpt2.eod not in gpt2.tokenize(END_OF_TEXT)
    assert gpt2.detokenize([gpt2.eod]) == END_OF_TEXT


def test_a_merges_file_may_come_from_windows_and_without_its_first_line(
    files: TokenizerSettings, tmp_path: Path
) -> None:
    merges = Path(str(files.merge_file)).read_text().splitlines()[1:]
    (tmp_path / "merges.txt").write_bytes("\r\n".join(merges).encode())
    again = build_tokenizer(TokenizerSettings("GPT2BPETokenizer", files.vocab_file, str(tmp_path / "merges.txt")))
    assert again.fingerprint() == build_tokenizer(files).fingerprint()


def test_it_can_be_saved_as_a_tokenizer_json(gpt2: Tokenizer, tmp_path: Path) -> None:
    assert isinstance(gpt2, HFTokenizer)
    gpt2.save(tmp_path / "tokenizer.json")
    again = HFTokenizer.from_file(tmp_path)
    assert [again.tokenize(text) for text in TEXTS] == [gpt2.tokenize(text) for text in TEXTS]
    assert (again.eod, again.vocab_size) == (gpt2.eod, gpt2.vocab_size)


MISTAKES: list[tuple[str, Any, str]] = [
    # file, its content, part of the message
    ("vocab.json", b'{"a": 0', r"vocab\.json is not JSON .*: vocab_file must be a vocab\.json"),
    ("vocab.json", b"[1, 2]", r"vocab\.json holds no JSON object"),
    ("vocab.json", b'{"a": "b"}', r"vocab\.json is not a map from tokens to ids"),
    ("vocab.json", b'{"a": 0, "b": 0}', r"vocab\.json is not a map from tokens to ids"),
    ("vocab.json", b'{"a": 0}', r"vocab\.json is not byte-level: 255 of the 256 bytes have no token"),
    ("vocab.json", b"\xff\xfe", r"vocab\.json is not a text file"),
    ("vocab.json", None, r"vocab\.json cannot be read \(No such file or directory\): check vocab_file"),
    ("merges.txt", None, r"merges\.txt cannot be read \(No such file or directory\): check merge_file"),
    ("merges.txt", b"#version: 0.2\na b c\n", r"merges\.txt:2 is not a pair of tokens: merge_file must be"),
    ("merges.txt", b"#version: 0.2\nq z\n", r'it has no token "qz"\. Check vocab_file and merge_file'),
]


@pytest.mark.parametrize(("name", "content", "message"), MISTAKES)
def test_a_wrong_file_is_named_with_its_key(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    files = gpt2_files(tmp_path)
    (tmp_path / name).unlink() if content is None else (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        build_tokenizer(files)


def test_both_files_are_needed(files: TokenizerSettings) -> None:
    with pytest.raises(DataError, match=r'"GPT2BPETokenizer" needs "vocab_file": a vocab\.json'):
        build_tokenizer(TokenizerSettings("GPT2BPETokenizer"))
    with pytest.raises(DataError, match=r'"GPT2BPETokenizer" needs "merge_file": a merges\.txt'):
        build_tokenizer(TokenizerSettings("GPT2BPETokenizer", files.vocab_file))


# HFGPT2Tokenizer


def hub_forms(files: TokenizerSettings, gpt2: Tokenizer, directory: Path) -> list[TokenizerSettings]:
    """The same tokenizer in all the forms HFGPT2Tokenizer reads."""
    assert isinstance(gpt2, HFTokenizer)
    gpt2.save(directory / "tokenizer.json")
    return [
        TokenizerSettings("HFGPT2Tokenizer", str(Path(str(files.vocab_file)).parent)),
        TokenizerSettings("HFGPT2Tokenizer", files.vocab_file, files.merge_file),
        TokenizerSettings("HFGPT2Tokenizer", str(directory)),
        TokenizerSettings("HFGPT2Tokenizer", str(directory / "tokenizer.json")),
    ]


def test_every_form_gives_gpt2s_ids_and_a_token_for_padding(
    files: TokenizerSettings, gpt2: Tokenizer, tmp_path: Path
) -> None:
    for form in hub_forms(files, gpt2, tmp_path):
        hub = build_tokenizer(form)
        assert (hub.eod, hub.vocab_size) == (gpt2.eod, gpt2.vocab_size + 1)
        assert find_vocabulary(arguments(**dataclasses.asdict(form))).size == hub.vocab_size
        for text in TEXTS[:-1]:
            assert hub.tokenize(text) == gpt2.tokenize(text)
        assert hub.tokenize("a<|padding|>b") == [*gpt2.tokenize("a"), gpt2.vocab_size, *gpt2.tokenize("b")]


def test_special_tokens_are_found_in_text(files: TokenizerSettings, gpt2: Tokenizer, tmp_path: Path) -> None:
    for form in hub_forms(files, gpt2, tmp_path)[:2]:
        assert build_tokenizer(form).tokenize("a<|endoftext|>") == [*gpt2.tokenize("a"), gpt2.eod]


@settings(deadline=None)
@given(text=ANY_TEXT)
def test_any_text_comes_back_through_the_hubs_form(text: str, files: TokenizerSettings) -> None:
    hub = build_tokenizer(TokenizerSettings("HFGPT2Tokenizer", files.vocab_file, files.merge_file))
    assert hub.detokenize(hub.tokenize(text)) == text


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub's client, which may not use the network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.mark.parametrize("name", [None, "someone/gpt2-like"])
def test_a_name_that_the_hub_cannot_give_tells_the_way_out(name: str | None, hub_cache: Path) -> None:
    with pytest.raises(DataError, match=rf'"{name or "gpt2"}" is neither a file .*hf download .*"vocab_file"'):
        build_tokenizer(TokenizerSettings("HFGPT2Tokenizer", name))


def test_a_name_is_found_in_the_hubs_cache_without_network(hub_cache: Path, gpt2: Tokenizer) -> None:
    assert isinstance(gpt2, HFTokenizer)
    repository = hub_cache / "models--gpt2"
    gpt2.save(repository / "snapshots" / "abc" / "tokenizer.json")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    for name in (None, "gpt2"):
        assert build_tokenizer(TokenizerSettings("HFGPT2Tokenizer", name)).eod == gpt2.eod


def test_a_directory_without_the_files_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"vocab\.json cannot be read .* check vocab_file"):
        build_tokenizer(TokenizerSettings("HFGPT2Tokenizer", str(tmp_path)))
