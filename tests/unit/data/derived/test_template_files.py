"""Where templates and the special tokens that they see are found."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from megatron.data.derived.template_files import load_chat_template
from megatron.errors import DataError
from tests.unit.data.derived.chats import write_tokenizer

TODAY = date(2024, 7, 26)


def test_a_template_is_found_beside_the_tokenizer_unless_a_file_is_given(tmp_path: Path) -> None:
    directory = write_tokenizer(tmp_path, chat_template="from the config", pad_token=None)
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"bos_token": "<other>", "pad_token": "<|turn|>"}))
    template = load_chat_template(directory, file=None, today=TODAY)
    assert (template.source, template.origin) == ("from the config", str(tmp_path / "tokenizer_config.json"))
    assert dict(template.special_tokens) == {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<|turn|>"}
    (tmp_path / "chat_template.jinja").write_text("from the file beside")
    assert load_chat_template(directory / "tokenizer.json", file=None, today=TODAY).source == "from the file beside"
    (tmp_path / "mine.jinja").write_text("mine")
    assert load_chat_template(directory, file=tmp_path / "mine.jinja", today=TODAY).source == "mine"


def test_of_named_templates_the_default_one_is_taken(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]
    directory = write_tokenizer(tmp_path, chat_template=named)
    assert load_chat_template(directory, file=None, today=TODAY).source == "plain"
    write_tokenizer(tmp_path, chat_template=named[:1])
    with pytest.raises(
        DataError, match='named tool_use, but none named "default": give the file of one with --chat-template'
    ):
        load_chat_template(directory, file=None, today=TODAY)


def test_a_tokenizer_without_template_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"has no chat template, neither in chat_template\.jinja nor in tokenizer_config\.json"
    ):
        load_chat_template(write_tokenizer(tmp_path), file=None, today=TODAY)
    with pytest.raises(
        DataError, match=r"missing\.jinja cannot be read \(No such file or directory\): check --chat-template"
    ):
        load_chat_template(write_tokenizer(tmp_path), file=tmp_path / "missing.jinja", today=TODAY)
