"""Which token ends a document: named, plain from its name, told by the tokenizer's files, or asked for; never guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from megatron.errors import DataError
from megatron.tokenizer.base import Tokenizer, TokenizerSettings
from megatron.tokenizer.build import build_tokenizer
from megatron.tokenizer.char_level import CharLevelTokenizer
from megatron.tokenizer.end_of_document import find_end_of_document
from megatron.tokenizer.hf import HFTokenizer
from megatron.tokenizer.train import train_bpe
from tests.unit.tokenizer.small import TEXTS

LLAMA_3 = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def hub_directory(directory: Path, special_tokens: list[str], **companions: dict[str, Any]) -> str:
    """A directory with a tokenizer.json and its companions, by the names of the files."""
    directory.mkdir(exist_ok=True)
    text = train_bpe(TEXTS, vocab_size=300, special_tokens=["<|endoftext|>"])
    content = json.loads(text._text.replace("<|endoftext|>", special_tokens[0]))
    flags = {key: value for key, value in content["added_tokens"][0].items() if key not in ("id", "content")}
    for number, token in enumerate(special_tokens[1:], start=1000):
        content["added_tokens"].append({"id": number, "content": token, **flags})
        content["model"]["vocab"][token] = number
    (directory / "tokenizer.json").write_text(json.dumps(content))
    for name, companion in companions.items():
        (directory / f"{name}.json").write_text(json.dumps(companion))
    return str(directory)


def load(place: str, eod_token: str | None = None) -> Tokenizer:
    return build_tokenizer(TokenizerSettings("HFTokenizer", place, eod_token=eod_token))


def eod(place: str, eod_token: str | None = None) -> str:
    """The text of the token that ends a document."""
    tokenizer = load(place, eod_token)
    return tokenizer.detokenize([tokenizer.eod])


@pytest.mark.parametrize(
    ("special_tokens", "eos_token", "expected"),
    [
        (QWEN, "<|im_end|>", "<|endoftext|>"),  # chat models: the end of a turn is not that of a document
        (LLAMA_3, "<|eot_id|>", "<|end_of_text|>"),
        (["<|endoftext|>", "<|padding|>"], None, "<|endoftext|>"),
        (["<s>", "</s>"], "</s>", "</s>"),
        (["<bos>", "<eos>", "<|im_end|>"], "<eos>", "<eos>"),
        (["<begin>", "<stop>", "</s>"], "<stop>", "<stop>"),
        (["<s>", "</s>"], None, "</s>"),
        (["<pad>", "<|im_end|>"], None, "<|im_end|>"),
    ],
)
@pytest.mark.parametrize("form", ["text", "object"])
def test_the_rule(special_tokens: list[str], eos_token: str | None, expected: str, form: str, tmp_path: Path) -> None:
    written = {"content": eos_token, "lstrip": False} if form == "object" and eos_token else eos_token
    assert eod(hub_directory(tmp_path, special_tokens, tokenizer_config={"eos_token": written})) == expected


def test_the_map_of_special_tokens_tells_what_the_configuration_leaves_out(tmp_path: Path) -> None:
    tokens = ["<stop>", "<eos>", "</s>"]
    assert eod(hub_directory(tmp_path, tokens, special_tokens_map={"eos_token": "<stop>"})) == "<stop>"
    assert eod(hub_directory(tmp_path, tokens, tokenizer_config={"model_max_length": 9})) == "<stop>"
    assert eod(hub_directory(tmp_path, tokens, tokenizer_config={"eos_token": "</s>"})) == "</s>"


def test_companions_count_for_the_file_inside_as_for_the_directory(tmp_path: Path) -> None:
    place = hub_directory(tmp_path, ["<stop>", "<eos>", "</s>"], tokenizer_config={"eos_token": "<stop>"})
    assert eod(f"{place}/tokenizer.json") == "<stop>"


def test_companions_of_another_tokenizer_do_not_count(tmp_path: Path) -> None:
    place = hub_directory(tmp_path, ["<eos>", "</s>"], tokenizer_config={"eos_token": "</s>"})
    (tmp_path / "tokenizer.json").rename(tmp_path / "20B_tokenizer.json")
    with pytest.raises(
        DataError, match='several tokens that may end a document: set "eod_token" to one of </s>, <eos>'
    ):
        load(f"{place}/20B_tokenizer.json")


@pytest.mark.parametrize("token", ["<|im_end|>", "<|im_start|>", "return"])
def test_the_configuration_may_name_any_token(token: str, tmp_path: Path) -> None:
    place = hub_directory(tmp_path, QWEN, tokenizer_config={"eos_token": "<|im_end|>"})
    if token == "return":
        assert token in load(place)._tokenizer.get_vocab()  # type: ignore[attr-defined]
    assert eod(place, eod_token=token) == token


def test_nothing_is_guessed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'several .* set "eod_token" to one of </s>, <\|eot_id\|>\.'):
        load(hub_directory(tmp_path, ["</s>", "<|eot_id|>"]))
    with pytest.raises(DataError, match=r'no token .*end a document: .* Set "eod_token" to one of <a>, <b>\.'):
        load(hub_directory(tmp_path, ["<a>", "<b>"]))


def test_a_token_that_is_not_there_is_told_with_who_named_it(tmp_path: Path) -> None:
    place = hub_directory(tmp_path, QWEN)
    with pytest.raises(
        DataError, match=r'"eod_token" is "<eod>": set "eod_token" to one of <\|endoftext\|>, <\|im_end'
    ):
        load(place, eod_token="<eod>")
    place = hub_directory(tmp_path, ["<a>", "</s>"], tokenizer_config={"eos_token": "<eos>"})
    with pytest.raises(DataError, match='files call "<eos>" the end of a sequence: set "eod_token" to one of </s>'):
        load(place)


def test_a_malformed_companion_is_named(tmp_path: Path) -> None:
    place = hub_directory(tmp_path, ["<a>", "</s>"])
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(DataError, match=r"tokenizer_config\.json is not JSON"):
        load(place)


def test_a_vocabulary_of_hundreds_of_special_tokens_makes_no_endless_message() -> None:
    tokens = {f"<extra_{i:03}>": i for i in range(300)}
    with pytest.raises(DataError) as caught:
        find_end_of_document(tokens.get, eod_token=None, special_tokens=tokens, origin="x")
    assert "<extra_009>, ...." in str(caught.value)
    assert "<extra_010>" not in str(caught.value)
    with pytest.raises(DataError, match='Set "eod_token" to the token that does'):
        find_end_of_document(lambda token: None, eod_token=None, origin="x")


def test_characters_end_documents_as_in_gpt_neox() -> None:
    assert CharLevelTokenizer().eod == 0


def test_training_without_a_token_that_ends_documents_is_refused() -> None:
    with pytest.raises(DataError, match=r"the tokenizer trained here has no token that is known to end a document"):
        train_bpe(TEXTS, vocab_size=300, special_tokens=["<pad>"])
    assert isinstance(train_bpe(TEXTS, vocab_size=300, special_tokens=["<pad>", "</s>"]), HFTokenizer)
