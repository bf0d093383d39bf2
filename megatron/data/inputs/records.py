"""From a line of JSON to the texts under the keys asked for.

orjson parses several times faster than Python's json. What it refuses is given to json, whose verdict counts: a byte order mark and
NaN are accepted, and messages are the familiar ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

PARAGRAPHS = "\n\n"  # between the parts of a text that is given as a list, as lm_dataformat joins them


class BadRecord(Exception):
    """A record without the texts asked for; the message goes after its place."""


def parse_line(line: bytes, keys: Sequence[str]) -> tuple[str, ...]:
    """The texts under `keys` of the object on a line. Raises BadRecord."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return texts_of(_parse_patiently(line), keys)
    if type(record) is dict:
        texts = [text for key in keys if type(text := record.get(key)) is str]
        if len(texts) == len(keys):  # nothing that orjson accepts has half of a surrogate pair
            return tuple(texts)
    return texts_of(record, keys)


def texts_of(record: Any, keys: Sequence[str]) -> tuple[str, ...]:
    """The texts under `keys` of a parsed record; a record that is itself a text serves when there is one key. Raises BadRecord."""
    if isinstance(record, str) and len(keys) == 1:
        return (checked(record),)
    if not isinstance(record, dict):
        raise BadRecord(f"holds a {_json_type(record)}, not an object with the key {_quoted(keys)}.")
    return tuple(_text_under(record, key) for key in keys)


def checked(text: str) -> str:
    """`text`, unless it has half of a surrogate pair, which JSON can express and UTF-8 cannot: BadRecord."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRecord(
            f"has the code {ord(text[error.start]):#06x}, half of a surrogate pair, which is not a character: "
            "correct the text, or remove it."
        ) from None
    return text


def _parse_patiently(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadRecord(f"is not valid JSON ({error}): correct or remove the line.") from None


def _text_under(record: dict[str, Any], key: str) -> str:
    if key not in record:
        raise BadRecord(f'has no key "{key}" (it has {_quoted(record)}): choose another key or remove the line.')
    value = record[key]
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        value = PARAGRAPHS.join(value)
    if not isinstance(value, str):
        raise BadRecord(f'has a {_json_type(value)} under "{key}", where a text is needed.')
    return checked(value)


def _quoted(keys: Iterable[Any]) -> str:
    return ", ".join(f'"{key}"' for key in list(keys)[:10]) or "none"


def _json_type(value: Any) -> str:
    names = {dict: "object", list: "list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "number")
