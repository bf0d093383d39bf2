"""Reading a tokenizer's files: every mistake is one DataError that names the file and the configuration key it came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from megatron.errors import DataError
from megatron.tokenizer.base import TokenizerArguments


def required_file(args: TokenizerArguments, key: str, *, what: str) -> str:
    """The value of `key`, "vocab_file" or "merge_file". what: the file that is meant, for the DataError when none is given."""
    value: str | None = getattr(args, key)
    if value is None:
        raise DataError(f'tokenizer_type "{args.tokenizer_type}" needs "{key}": {what}.')
    return value


def read_bytes(path: Path, *, key: str) -> bytes:
    """The content of a file that `key` names, or that lies where it says."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check {key}.") from None


def read_text(path: Path, *, key: str, what: str) -> str:
    """The text of a file. what: the kind of file that is expected."""
    try:
        return read_bytes(path, key=key).decode("utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{path} is not a text file: {key} must be {what}.") from None


def read_json_object(path: Path, *, key: str, what: str) -> dict[str, Any]:
    """The JSON object in a file. what: the kind of file that is expected."""
    text = read_text(path, key=key, what=what)
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}): {key} must be {what}.") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} holds no JSON object: {key} must be {what}.")
    return content
