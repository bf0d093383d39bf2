"""Where chat templates are: a file of the user's, `chat_template.jinja` or `tokenizer_config.json` beside the tokenizer, in this order."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from megatron.data.derived.chat_template import ChatTemplate
from megatron.errors import DataError
from megatron.tokenizer.files import read_json_object, read_text

NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
COMPANIONS = ("tokenizer_config.json", "special_tokens_map.json")
WHAT = "the directory of a Hugging Face tokenizer"


def load_chat_template(tokenizer: Path, *, file: Path | None, today: date) -> ChatTemplate:
    """The template that goes with a tokenizer: `file`, or the one in the tokenizer's directory. Raises DataError when there is none."""
    if not tokenizer.exists():
        raise DataError(
            f"the tokenizer {tokenizer} does not exist: --tokenizer-path must be the directory of a Hugging Face tokenizer, or its "
            "tokenizer.json; download it first if that is a name of the hub."
        )
    directory = tokenizer if tokenizer.is_dir() else tokenizer.parent
    configs = [_read_config(directory / name) for name in COMPANIONS]
    if file is not None:
        source, origin = read_text(file, key="--chat-template", what="a Jinja template"), file
    elif (directory / "chat_template.jinja").is_file():
        origin = directory / "chat_template.jinja"
        source = read_text(origin, key="--tokenizer-path", what="a Jinja template")
    else:
        origin = directory / COMPANIONS[0]
        source = _template_in(configs[0].get("chat_template"), origin)
    return ChatTemplate(source, str(origin), _special_tokens(configs), today)


def _read_config(path: Path) -> dict[str, Any]:
    return read_json_object(path, key="--tokenizer-path", what=WHAT) if path.is_file() else {}


def _template_in(value: Any, origin: Path) -> str:
    """The template in a tokenizer_config.json: a text, or a list of named ones of which "default" is meant."""
    if isinstance(value, str):
        return value
    fix = "give the file of one with --chat-template."
    if not isinstance(value, list):
        raise DataError(
            f"{origin.parent} has no chat template, neither in chat_template.jinja nor in {origin.name}: {fix}"
        )
    named = {
        one["name"]: one["template"] for one in value if isinstance(one, dict) and {"name", "template"} <= one.keys()
    }
    if not isinstance(named.get("default"), str):
        raise DataError(f'{origin} has chat templates named {", ".join(named)}, but none named "default": {fix}')
    source: str = named["default"]
    return source


def _special_tokens(configs: Sequence[dict[str, Any]]) -> tuple[tuple[str, str], ...]:
    """The tokens that the files name, the first file first; a token is a text, or an object that holds it."""
    tokens = dict[str, str]()
    for name in NAMED_TOKENS:
        for config in configs:
            token = config.get(name)
            text = token.get("content") if isinstance(token, dict) else token
            if isinstance(text, str):
                tokens.setdefault(name, text)
    return tuple(tokens.items())
