"""The files of the tokenizer are asked for before a script runs, and not before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from megatron.components import TOKENIZERS
from megatron.errors import DataError
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.resolving.checks.tokenizer import FILES
from megatron.tokenizer.base import TokenizerSettings
from megatron.tokenizer.build import build_tokenizer
from tests.unit.neox_arguments.minimal import MINIMAL, build, problem

RUN: dict[str, Any] = {"user_script": "train.py", "data_path": "d"}


def test_the_default_tokenizer_asks_for_its_two_files() -> None:
    message = problem(**RUN)
    assert message.startswith(
        '"tokenizer_type" is "GPT2BPETokenizer" (the default), "vocab_file" is not given, "merge_file" is not given: '
        "this tokenizer reads a vocab.json and its merges.txt; give vocab_file and merge_file, or choose another"
    )


@pytest.mark.parametrize(("kind", "files"), FILES.items())
def test_what_is_asked_for_is_what_the_tokenizer_needs(kind: str, files: dict[str, str], tmp_path: Path) -> None:
    given: dict[str, Any] = {}
    for key in files:
        assert f'"{key}" is not given' in problem(tokenizer_type=kind, **RUN, **given)
        with pytest.raises(DataError, match=f'"{kind}" needs "{key}": '):
            build_tokenizer(TokenizerSettings(kind, **given))
        given[key] = str(tmp_path)  # it is there, and of no use
    assert build(tokenizer_type=kind, **RUN, **given).tokenizer_type == kind


def test_tokenizers_that_need_no_files_are_not_asked_for_any() -> None:
    for kind in set(TOKENIZERS) - set(FILES):
        assert build(tokenizer_type=kind, **RUN).vocab_file is None
    assert set(FILES) < set(TOKENIZERS)


def test_generation_needs_the_tokenizer_too() -> None:
    run = {"user_script": "generate.py", "load": "hf:organisation/model"}
    assert '"vocab_file" is not given' in problem(tokenizer_type="SPMTokenizer", **run)


def test_files_that_do_not_exist_are_named(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").touch()
    there, absent = str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt")
    assert problem(**RUN, vocab_file=there, merge_file=absent).startswith(
        f'"merge_file" is "{absent}": this file does not exist; correct the path'
    )
    message = problem(**RUN, vocab_file="/nowhere/vocab.json", merge_file=absent)
    assert '"vocab_file" is "/nowhere/vocab.json"' in message
    assert "these files do not exist" in message


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("TiktokenTokenizer", name) for name in ("cl100k_base", "gpt2")),
        *(("HFGPT2Tokenizer", name) for name in ("gpt2", "openai-community/gpt2")),
    ],
)
def test_names_are_not_taken_for_missing_files(kind: str, name: str) -> None:
    assert build(tokenizer_type=kind, vocab_file=name, **RUN).vocab_file == name


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        *(("TiktokenTokenizer", path) for path in ("cl100k_base.tiktoken", "data/cl100k_base", "./small")),
        *(("HFGPT2Tokenizer", path) for path in ("gpt2/vocab.json", "/data/gpt2", "data/tokenizers/gpt2")),
        *(("HFTokenizer", path) for path in ("gpt2", "tokenizer.json")),
    ],
)
def test_paths_are_not_taken_for_names(kind: str, path: str) -> None:
    assert f'"vocab_file" is "{path}": this file does not exist' in problem(tokenizer_type=kind, vocab_file=path, **RUN)


def test_without_a_script_and_while_planning_no_file_is_looked_for() -> None:
    assert build(vocab_file="/nowhere/vocab.json").vocab_file == "/nowhere/vocab.json"
    assert NeoXArgs.from_dict({**MINIMAL, **RUN}, planning=True).vocab_file is None


def test_a_token_that_would_have_no_effect_is_refused() -> None:
    message = problem(tokenizer_type="CharLevelTokenizer", eod_token="</s>")
    assert '"eod_token" is "</s>"' in message
    assert "ends documents with id 0; remove eod_token" in message
    assert build(tokenizer_type="HFTokenizer", eod_token="</s>").eod_token == "</s>"


def test_an_empty_path_is_not_given() -> None:
    assert "give vocab_file" in problem(tokenizer_type="HFTokenizer", vocab_file="", **RUN)
