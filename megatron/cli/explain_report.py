"""What `deepy.py explain` prints about a key: its meaning, its value in a config, and how that came about."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

from megatron.cli.styled import Line, plain
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.explaining.describe import shorten
from megatron.neox_arguments.explaining.field_docs import FieldDoc
from megatron.neox_arguments.explaining.key_state import state_of
from megatron.neox_arguments.explaining.provenance import PROPERTIES, Writing, trace
from megatron.neox_arguments.explaining.section_docs import describe_key
from megatron.neox_arguments.reading.aliases import spellings
from megatron.neox_arguments.reading.legacy import Translation
from megatron.neox_arguments.reading.legacy_rules import RULES
from megatron.neox_arguments.reading.values import ConfigValues, quote
from megatron.neox_arguments.resolving.draft import Draft
from megatron.neox_arguments.resolving.unsupported import NotBuilt
from megatron.text import indent, table

WIDTH = 110
LONGEST_VALUE = 70


@dataclass(frozen=True)
class Config:
    """A configuration as far as it can be resolved without running it."""

    written: ConfigValues
    draft: Draft
    translations: tuple[Translation, ...]
    missing: tuple[NotBuilt, ...]


def key_lines(key: str) -> list[Line]:
    """A key in words."""
    if _is_older(key):
        return [plain(key, "bold"), plain(f"  an older key; {RULES[key].reason}")]
    if key in PROPERTIES:
        text = getattr(NeoXArgs, key).__doc__ or ""
        return [
            plain(key, "bold"),
            *_wrapped(text),
            _row("derived", f"{PROPERTIES[key][0]}, from {', '.join(PROPERTIES[key][1])}"),
        ]
    doc, others = describe_key(key), [name for name in spellings(key) if name != key]
    lines = [plain(key, "bold"), *_wrapped(doc.text), _row("type", _type(doc)), _row("default", _default(doc))]
    lines += [_row("also", f"written as {others[0]}")] if others else []
    state = str(state_of(key))
    return [*lines, _row("state", state)] if state else lines


def _is_older(key: str) -> bool:
    """Whether only older files have this key."""
    return key in RULES and key not in NeoXArgs.model_fields and "." not in key


def _type(doc: FieldDoc) -> str:
    if doc.type == "name":
        return f"one of {doc.allowed}"
    if doc.key == "attention_config":
        return f"{doc.type}, types: {doc.allowed}"
    return doc.type if doc.type == "true or false" or not doc.allowed else f"{doc.type}, {doc.allowed}"


def value_lines(key: str, config: Config) -> list[Line]:
    """A key in words, its value in a config and how it came about."""
    title, *words = key_lines(key)
    if _is_older(key):
        return [title, *words, *(plain(f"  {older}") for older in config.translations if older.key == key)]
    found = trace(key, config.draft, config.written, config.translations)
    value = _short(found.value) if found.known else "no usable value (see the problems)"
    is_property = key in PROPERTIES
    words = words[:-1] if is_property else words
    lines: list[Line] = [[(key, "bold"), (" = ", ""), (value, "bold green")], *words, plain("  came about")]
    rows = [] if is_property else [_default_row(_default(describe_key(key)))]
    rows += [(item.place, _given(item, key), item.remark) for item in found.writings]
    if found.rule:
        rows.append(("derived", _short(found.value) if found.known else "", found.rule))
    lines += map(plain, indent(table(rows), 4))
    inputs = [f"{item.key} = {_short(item.value)}{f' ({item.place})' if item.place else ''}" for item in found.inputs]
    return [*lines, plain(f"      from {', '.join(inputs)}")] if inputs else lines


def _default(doc: FieldDoc) -> str:
    """The default in words; that of the other spelling where the key only refers to it."""
    return describe_key(doc.default).default if doc.default in spellings(doc.key) else doc.default


def _default_row(default: str) -> tuple[str, str, str]:
    """A literal default stands where values stand, a default in words beside it."""
    is_literal = default[0] in '"[{-0123456789' or default in ("true", "false", "none")
    return ("default", default, "") if is_literal else ("default", "", default)


def _wrapped(text: str) -> list[Line]:
    return [
        plain(line)
        for line in textwrap.wrap(" ".join(text.split()), WIDTH, initial_indent="  ", subsequent_indent="  ")
    ]


def _row(label: str, text: str) -> Line:
    return [(f"  {label:10}", "dim"), (text, "")]


def _given(item: Writing, key: str) -> str:
    value = _short(item.value)
    return value if item.name == key else f"{item.name}: {value}" if item.value is not None else item.name


def _short(value: Any) -> str:
    short = shorten(value)
    if short is not value:
        return str(short)
    return "none" if value is None else quote(value, limit=LONGEST_VALUE)
