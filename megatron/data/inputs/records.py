"""From a line of JSON to what is taken from it: the texts under the keys asked for, unless a subclass of Fields takes something else.

orjson parses several times faster than Python's json. What it refuses is given to json, whose verdict counts: a byte order mark and
NaN are accepted, and messages are the familiar ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

PARAGRAPHS = "\n\n"  # between the parts of a text that is given as a list, as lm_dataformat joins them


class BadRecord(Exception):
    """A record without the texts asked for; the message goes after its place."""


@dataclass(frozen=True)
class Fields:
    """What is taken from a record: the texts under `keys`. Each way to take it raises BadRecord where it is not there.

    A subclass takes something else by overriding the ways.
    """

    keys: tuple[str, ...]

    def of_line(self, line: bytes) -> tuple[Any, ...]:
        """From a line of JSON."""
        return parse_line(line, self.keys)

    def of_record(self, record: Any) -> tuple[Any, ...]:
        """From a parsed record."""
        return texts_of(record, self.keys)

    def of_row(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """From the values under `keys`, in their order."""
        if all(type(value) is str for value in values):
            return values
        return self.of_record(dict(zip(self.keys, values, strict=True)))

    def of_text(self, text: str) -> tuple[Any, ...]:
        """From a document that is nothing but a text, for the formats without keys."""
        if len(self.keys) == 1:
            return (text,)
        raise BadRecord(
            f"is plain text, which has no keys, but {len(self.keys)} are asked for: give one key for such files."
        )


def parse_line(line: bytes, keys: Sequence[str]) -> tuple[str, ...]:
    """The texts under `keys` of the object on a line. Raises BadRecord."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return texts_of(parse_patiently(line), keys)
    if type(record) is dict:
        texts = [text for key in keys if type(text := record.get(key)) is str]
        if len(texts) == len(keys):  # nothing that orjson accepts has half of a surrogate pair
            return tuple(texts)
    return texts_of(record, keys)


def parse_record(line: bytes) -> Any:
    """The value on a line. Raises BadRecord."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return parse_patiently(line)


def texts_of(record: Any, keys: Sequence[str]) -> tuple[str, ...]:
    """The texts under `keys` of a parsed record; a record that is itself a text serves when there is one key. Raises BadRecord."""
    if isinstance(record, str) and len(keys) == 1:
        return (checked(record),)
    if not isinstance(record, dict):
        raise BadRecord(f"holds a {json_type(record)}, not an object with the key {_quoted(keys)}.")
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


def parse_patiently(line: bytes) -> Any:
    """The value on a line, by Python's json. Raises BadRecord."""
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
        raise BadRecord(f'has a {json_type(value)} under "{key}", where a text is needed.')
    return checked(value)


def _quoted(keys: Iterable[Any]) -> str:
    return ", ".join(f'"{key}"' for key in list(keys)[:10]) or "none"


def json_type(value: Any) -> str:
    """What a user calls the type of a JSON value."""
    names = {dict: "object", list: "list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "number")
