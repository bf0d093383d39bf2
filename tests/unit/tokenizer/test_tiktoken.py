"""tiktoken's encodings, by name or from a file: the ids of tiktoken itself and of an independent implementation."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import regex
import requests
import tiktoken
import tiktoken_ext.openai_public as published
from hypothesis import given, settings

from megatron.errors import DataError, MissingRequirement
from megatron.planning.model.vocabulary import find_vocabulary
from megatron.tokenizer import tiktoken_file as files
from megatron.tokenizer.base import Tokenizer, TokenizerSettings
from megatron.tokenizer.build import build_tokenizer
from tests.unit.planning.builders import arguments
from tests.unit.tokenizer.small import ANY_TEXT, END_OF_TEXT, GPT2_PIECES, TEXTS, tiktoken_file, tiktoken_ranks


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tiktoken")
    tiktoken_file(directory / "small.tiktoken")
    return directory


@pytest.fixture(scope="module")
def ranks(directory: Path) -> dict[bytes, int]:
    return tiktoken_ranks(directory / "gpt2")


@pytest.fixture(scope="module")
def tokenizer(directory: Path) -> Tokenizer:
    return build_tokenizer(TokenizerSettings("TiktokenTokenizer", str(directory / "small.tiktoken")))


def slow_ids(text: str, ranks: dict[bytes, int]) -> list[int]:
    """Of every piece, the neighbours whose union has the lowest rank are joined, the first of equals first."""
    ids = []
    for piece in regex.findall(GPT2_PIECES, text):
        parts = [bytes((byte,)) for byte in piece.encode()]
        while len(parts) > 1:
            rank, i = min((ranks.get(parts[i] + parts[i + 1], 10**9), i) for i in range(len(parts) - 1))
            if rank == 10**9:
                break
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        ids += [ranks[part] for part in parts]
    return ids


@settings(deadline=None)
@given(text=ANY_TEXT)
def test_the_ids_are_those_of_two_other_implementations_and_lead_back(
    text: str, tokenizer: Tokenizer, ranks: dict[bytes, int]
) -> None:
    special = {END_OF_TEXT: len(ranks) + 1, "<|fim|>": len(ranks) + 2}
    encoding = tiktoken.Encoding(name="same", pat_str=GPT2_PIECES, mergeable_ranks=ranks, special_tokens=special)
    ids = tokenizer.tokenize(text)
    assert ids == encoding.encode(text, allowed_special="all")
    parts = text.split(END_OF_TEXT)
    expected = slow_ids(parts[0], ranks)
    for part in parts[1:]:
        expected += [special[END_OF_TEXT], *slow_ids(part, ranks)]
    assert ids == expected
    assert tokenizer.detokenize(ids) == text


def test_the_end_of_a_document_and_the_size_of_the_vocabulary(
    tokenizer: Tokenizer, ranks: dict[bytes, int], directory: Path
) -> None:
    assert tokenizer.eod == len(ranks) + 1
    assert tokenizer.vocab_size == len(ranks) + 3
    args = arguments(tokenizer_type="TiktokenTokenizer", vocab_file=str(directory / "small.tiktoken"))
    assert find_vocabulary(args).size == tokenizer.vocab_size
    assert build_tokenizer(TokenizerSettings("TiktokenTokenizer", args.vocab_file, eod_token="<|fim|>")).eod == (
        len(ranks) + 2
    )


def test_special_tokens_stay_visible_and_holes_and_halves_of_characters_become_a_sign(
    tokenizer: Tokenizer, ranks: dict[bytes, int]
) -> None:
    ids = [tokenizer.eod, len(ranks), ranks[b"\xc3"], *tokenizer.tokenize("x"), 10**9]
    assert tokenizer.detokenize(ids) == "<|endoftext|>\ufffd\ufffdx\ufffd"


def test_the_fingerprint_covers_ranks_pattern_and_special_tokens(directory: Path, tmp_path: Path) -> None:
    first = build_tokenizer(TokenizerSettings("TiktokenTokenizer", str(directory / "small.tiktoken"))).fingerprint()
    assert build_tokenizer(tiktoken_file(tmp_path / "moved.tiktoken")).fingerprint() == first
    assert build_tokenizer(tiktoken_file(tmp_path / "a.tiktoken", pattern=r"\w+|\W")).fingerprint() != first
    settings = tiktoken_file(tmp_path / "a.tiktoken")
    content = json.loads((tmp_path / "a.json").read_text())
    content["special_tokens"]["<|x|>"] = 5000
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert build_tokenizer(settings).fingerprint() != first


# The published encodings


def published_constructor(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], str]:
    """What tiktoken builds an encoding from, its file left out, and the digest it expects of that file."""
    digests = []

    def no_file(url: str, expected_hash: str) -> dict[bytes, int]:
        digests.append(expected_hash)
        return {}

    monkeypatch.setattr(published, "load_tiktoken_bpe", no_file)
    return published.ENCODING_CONSTRUCTORS[name](), digests[0]


@pytest.mark.parametrize(("digest", "encoding"), files.PUBLISHED.items(), ids=lambda value: getattr(value, "name", ""))
def test_the_published_encodings_are_tiktokens(
    digest: str, encoding: files.Encoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, their_digest = published_constructor(encoding.name, monkeypatch)
    assert (encoding.pattern, encoding.special_tokens) == (theirs["pat_str"], theirs["special_tokens"])
    assert digest == their_digest


def test_a_published_file_is_known_by_its_content_and_needs_no_companion(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (directory / "small.tiktoken").read_bytes()
    (tmp_path / "any_name").write_bytes(content)
    cl100k = next(encoding for encoding in files.PUBLISHED.values() if encoding.name == "cl100k_base")
    monkeypatch.setitem(files.PUBLISHED, hashlib.sha256(content).hexdigest(), cl100k)
    tokenizer = build_tokenizer(TokenizerSettings("TiktokenTokenizer", str(tmp_path / "any_name")))
    assert (tokenizer.eod, tokenizer.vocab_size) == (100257, 100277)
    assert [tokenizer.detokenize(tokenizer.tokenize(text)) for text in TEXTS] == TEXTS


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, nothing loaded, and a network that is down."""

    def fail(*args: object, **kwargs: object) -> None:
        raise requests.ConnectionError("no route to host")

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {})
    monkeypatch.setattr(requests, "get", fail)


@pytest.mark.usefixtures("no_network")
def test_a_name_without_network_or_cache_tells_the_ways_out() -> None:
    with pytest.raises(
        DataError, match=r"cl100k_base.* \(ConnectionError\).*TIKTOKEN_CACHE_DIR.*cl100k_base\.tiktoken"
    ):
        build_tokenizer(TokenizerSettings("TiktokenTokenizer", "cl100k_base"))


@pytest.mark.usefixtures("no_network")
def test_a_name_is_found_in_tiktokens_cache(
    tmp_path: Path, directory: Path, ranks: dict[bytes, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "https://example.org/small.tiktoken"
    (tmp_path / "cache").mkdir()
    cached = tmp_path / "cache" / hashlib.sha1(url.encode()).hexdigest()
    cached.write_bytes((directory / "small.tiktoken").read_bytes())

    def small() -> dict[str, Any]:
        loaded = tiktoken.load.load_tiktoken_bpe(url)
        special = {END_OF_TEXT: 1000}
        return {"name": "small", "pat_str": GPT2_PIECES, "mergeable_ranks": loaded, "special_tokens": special}

    monkeypatch.setattr(tiktoken.registry, "ENCODING_CONSTRUCTORS", {"small": small})
    tokenizer = build_tokenizer(TokenizerSettings("TiktokenTokenizer", "small"))
    assert (tokenizer.eod, tokenizer.vocab_size) == (1000, 1001)
    assert tokenizer.tokenize("return x") == slow_ids("return x", ranks)


def test_a_wrong_name_gets_a_suggestion() -> None:
    with pytest.raises(DataError, match=r'"cl100k_bse", which is neither .* \(did you mean "cl100k_base"\?\)'):
        build_tokenizer(TokenizerSettings("TiktokenTokenizer", "cl100k_bse"))
    with pytest.raises(DataError, match='"TiktokenTokenizer" needs "vocab_file": the name of an encoding'):
        build_tokenizer(TokenizerSettings("TiktokenTokenizer"))


WHOLE = "".join(f"{base64.b64encode(bytes((byte,))).decode()} {byte}\n" for byte in range(256))
FINE = '{"pat_str": "a", "special_tokens": {"<|endoftext|>": 300}}'
MISTAKES: list[tuple[str, str | None, str]] = [
    # the file, its companion, part of the message
    (WHOLE, None, r"a\.tiktoken is none of the published encodings \(r50k_base, .*Give them in .*a\.json"),
    (WHOLE[:-20], FINE, r"a\.tiktoken is not whole: \d of the 256 bytes have no token"),
    ("IQ== 0\nIg==\n", FINE, r"a\.tiktoken:2 is not a token in base64 and its rank"),
    ("!!! 0\n", FINE, r"a\.tiktoken:1 is not a token in base64 and its rank"),
    (WHOLE + "YWI= 7\n", FINE, "gives one id to several tokens"),
    (WHOLE, "{", r"a\.json is not JSON"),
    (WHOLE, '{"pat_str": "a"}', r"a\.json is not the companion"),
    (WHOLE, '{"pat_str": "a", "special_tokens": {"<|endoftext|>": "1"}}', r"a\.json is not the companion"),
    (WHOLE, '{"pat_str": "a", "special_tokens": {"<|endoftext|>": 7}}', r"ids that other tokens have: \[7\]"),
    (WHOLE, '{"pat_str": "(", "special_tokens": {"<|endoftext|>": 300}}', r"cannot use .*a\.tiktoken .*parenthesis"),
    (WHOLE, '{"pat_str": "a", "special_tokens": {}}', 'no token that is known to end a document.*"eod_token"'),
]


@pytest.mark.parametrize(("content", "companion", "message"), MISTAKES)
def test_a_wrong_file_is_named(content: str, companion: str | None, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.tiktoken").write_text(content)
    if companion is not None:
        (tmp_path / "a.json").write_text(companion)
    with pytest.raises(DataError, match=message):
        build_tokenizer(TokenizerSettings("TiktokenTokenizer", str(tmp_path / "a.tiktoken")))


def test_without_the_package_the_requirements_file_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    monkeypatch.delitem(sys.modules, "megatron.tokenizer.tiktoken", raising=False)
    with pytest.raises(MissingRequirement, match=r'"tiktoken": pip install -r requirements/requirements-tiktoken\.txt'):
        build_tokenizer(TokenizerSettings("TiktokenTokenizer", "cl100k_base"))
