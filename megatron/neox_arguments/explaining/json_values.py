"""JSON Schemas of values: what a YAML file may hold for a type of the configuration.

Pydantic says types and ranges. Added here is what else it reads: numbers written as text, `yes`, numbers where text is expected, and
null for "not given". Everything about a value that is not one of a list of names stands side by side in one schema, without `anyOf`:
`pattern` speaks of text only and `minimum` of numbers only, and editors explain such a schema best.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from megatron.components import ATTENTION
from megatron.neox_arguments.keys.planned import PLANNED

Schema = dict[str, Any]

_FLAGS = ("true", "false", "yes", "no", "on", "off", "t", "f", "y", "n", "1", "0")


def any_case(words: Iterable[str]) -> str:
    """A pattern of these words in upper or lower case."""
    return f"^({'|'.join(map(_letters, words))})$"


def _letters(word: str) -> str:
    return "".join(f"[{letter.upper()}{letter.lower()}]" if letter.isalpha() else letter for letter in word)


# YAML 1.1 reads 320_000 as a number, YAML 1.2 as text. Text has no range in a schema, and whether 1.5e3 is whole takes arithmetic: text
# with an exponent passes for whole unless the exponent is negative.
NUMBER_TEXT = r"^\s*[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*$"
INTEGER_TEXT = r"^\s*[-+]?([0-9][0-9_]*(\.0*)?|[0-9]*\.?[0-9]+[eE]\+?[0-9]+)\s*$"
FLAG_TEXT = any_case(_FLAGS)

_BOUNDS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    **{name: name for name in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "minItems", "maxItems")},
}
_LOOSE: dict[str, Schema] = {
    "integer": {"type": ["integer", "string"], "pattern": INTEGER_TEXT},
    "number": {"type": ["number", "string"], "pattern": NUMBER_TEXT},
    "boolean": {"type": ["boolean", "string", "integer"], "pattern": FLAG_TEXT, "minimum": 0, "maximum": 1},
    "string": {"type": ["string", "number"]},
    "object": {"type": ["object"]},
}


def written(schema: Mapping[str, Any], *, strict_flags: bool = False) -> Schema:
    """What may be written for a value with this pydantic schema.

    strict_flags: true and false only, as in the sections that DeepSpeed reads.
    """
    bounds = {_BOUNDS[name]: value for name, value in schema.items() if name in _BOUNDS}
    if "enum" in schema or "const" in schema:
        return {"enum": list(schema["enum"]) if "enum" in schema else [schema["const"]]}
    if "anyOf" in schema:
        members = [member for member in schema["anyOf"] if member.get("type") != "null"]
        return {**_merge([written(member, strict_flags=strict_flags) for member in members]), **bounds}
    if schema.get("type") == "array":
        items = (
            [written(item) for item in schema["prefixItems"]] if "prefixItems" in schema else written(schema["items"])
        )
        return {"type": ["array"], "items": items, **bounds}
    if schema.get("type") == "boolean" and strict_flags:
        return {"type": ["boolean"]}
    return {**_LOOSE[schema["type"]], **bounds} if "type" in schema else {}


def _merge(schemas: list[Schema]) -> Schema:
    """One of several; they speak of different types, except that the text of a number includes that of a whole number."""
    if len(schemas) == 1:
        return schemas[0]
    names = [name for schema in schemas for name in schema["type"]]
    merged = {keyword: value for schema in schemas for keyword, value in schema.items()}
    types = [name for name in dict.fromkeys(names) if not (name == "integer" and "number" in names)]
    return {**merged, "type": types}


def nullable(schema: Mapping[str, Any]) -> Schema:
    """Or null, which means "not given"."""
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    if "enum" in schema:
        return {**schema, "enum": [*schema["enum"], None]}
    return {**schema, "type": [*schema["type"], "null"]} if "type" in schema else dict(schema)


def or_older(schema: Mapping[str, Any], values: tuple[Any, ...]) -> Schema:
    """Or one of these values of older files, which editors do not offer."""
    older = [
        {"type": ["string"], "pattern": f"^{value}$"}
        if isinstance(value, str)
        else {"type": ["integer"], "minimum": value, "maximum": value}
        for value in values
    ]
    return {"anyOf": [dict(schema), *older]} if older else dict(schema)


def attention_types() -> Schema:
    """`[[[types...], repeat], ...]` or one type a layer."""
    planned = [name for name in PLANNED["attention_config"] if name not in ATTENTION]
    names = {"enum": [*ATTENTION.names, *planned]}
    pattern = {"type": ["array"], "items": names, "minItems": 1}
    repeat = {"anyOf": [{"type": "integer", "minimum": 0}, {"const": "all"}]}
    entry = {"type": ["array"], "items": [pattern, repeat], "minItems": 2, "maxItems": 2}
    return {"type": ["array"], "items": {"anyOf": [names, entry]}}
