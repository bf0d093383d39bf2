"""The configuration as a JSON Schema (draft-07), with which editors complete, explain and check config files.

Editors read YAML 1.2, so `1e-4` is a number for them. Files are merged, so no key is required. `-` for `_` in keys is accepted, but
not offered.

Beyond draft-07, for editors built on yaml-language-server: `errorMessage` in our words, `enumDescriptions`, `deprecationMessage`, and
`doNotSuggest`, which keeps a key out of completion lists. Keys within sections tell their defaults in their descriptions, because
completing a section would write out each `default`.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from megatron.components import OPTIMIZERS
from megatron.neox_arguments.arguments import NeoXArgs
from megatron.neox_arguments.explaining.field_docs import GROUP_OF, FieldDoc
from megatron.neox_arguments.explaining.json_layout import lay_out
from megatron.neox_arguments.explaining.json_values import (
    Schema,
    any_case,
    attention_types,
    nullable,
    or_older,
    written,
)
from megatron.neox_arguments.explaining.key_state import state_of
from megatron.neox_arguments.explaining.section_docs import describe_key
from megatron.neox_arguments.keys.sections import CLOSED, LEGACY, SECTIONS
from megatron.neox_arguments.keys.types import ComponentName, Group, lower_case
from megatron.neox_arguments.reading.legacy_rules import RULES, Rule
from megatron.neox_arguments.resolving.unsupported import RUNTIME

SECTION = "section of keys and values"
"""The type in words of a key that holds keys."""


def schema_text() -> str:
    """The schema as a file."""
    return lay_out(build_schema()) + "\n"


def build_schema() -> Schema:
    """The schema of a config file."""
    keys = {key: _key_schema(key) for key in GROUP_OF}
    older = {key: _older_schema(rule) for key, rule in RULES.items() if not rule.remains and "." not in key}
    properties = {**keys, **older}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Configuration",
        "description": "Keys of a config file. Made by tools/config_reference.py from megatron/neox_arguments; do not edit.",
        "type": "object",
        "properties": properties,
        "patternProperties": {_dashed(key): {"$ref": f"#/properties/{key}"} for key in properties if "_" in key},
        "additionalProperties": False,
    }


def _dashed(key: str) -> str:
    """A pattern of the spellings of `key` that have a `-`; the plain one has an entry of its own."""
    return f"^(?=.*-){key.replace('_', '[-_]')}$"


def _key_schema(key: str) -> Schema:
    field = NeoXArgs.model_fields[key]
    default = {} if field.default is None else {"default": json.loads(json.dumps(field.default))}
    return {"description": _description(key), **_value(key, NeoXArgs), **default, **_hints(key)}


def _sub_key_schema(path: str, model: type[Group]) -> Schema:
    section, _, key = path.rpartition(".")
    default = describe_key(path).default
    told = model.model_fields[key].default is None
    text = _description(path) + ("" if told else f" Default: {default}.")
    ignored = {"doNotSuggest": True} if key in LEGACY.get(section, ()) else {}
    return {"description": text, **_value(path, model), **_hints(path), **ignored}


def _older_schema(rule: Rule) -> Schema:
    """A key of older files; what it is read as depends on its value, so any is accepted here."""
    message = f"Key of older files: {f'now {rule.new_name}; ' if rule.new_name else ''}{rule.refusal or rule.reason}."
    return {"description": message, "deprecationMessage": message}


def _value(path: str, model: type[Group]) -> Schema:
    """What may be written for a key."""
    key = path.rpartition(".")[2]
    doc = describe_key(path)
    if path in RUNTIME:
        return {"type": "null", "errorMessage": "only running programs set this key; remove it"}
    if doc.type == SECTION:
        return _section_schema(path)
    if path == "attention_config":
        schema = attention_types()
    else:
        schema = written(_pydantic_schemas(model)[key], strict_flags="." in path)
    if "enum" in schema:
        return _choice_schema(path, schema, model.model_fields[key])
    message = {"errorMessage": _expectation(doc)} if "type" in schema else {}
    return {**or_older(nullable(schema), _older_values(path)), **message}


def _older_values(path: str) -> tuple[Any, ...]:
    return RULES[path].older_values if path in RULES else ()


def _expectation(doc: FieldDoc) -> str:
    """`expected a whole number (at least 1)`."""
    article = "" if doc.type in ("true or false", "text") else "a "
    bounds = f" ({doc.allowed})" if doc.allowed.startswith(("at ", "above", "below")) else ""
    return f"expected {article}{doc.type}{bounds}"


def _choice_schema(path: str, names: Schema, field: FieldInfo) -> Schema:
    """One of a list of names, and which of them are not built yet."""
    component = next((item for item in field.metadata if isinstance(item, ComponentName)), None)
    schema = nullable(names)
    if component is not None and set(component.allowed) > set(component.registry.names):
        states = ["built" if name in component.registry else "not built yet" for name in component.allowed]
        schema["enumDescriptions"] = [*states, "not given"]
    lowered = any(isinstance(item, BeforeValidator) and item.func is lower_case for item in field.metadata)
    if lowered:
        return {"anyOf": [schema, {"type": ["string"], "pattern": any_case(names["enum"])}]}
    return or_older(schema, _older_values(path))


def _section_schema(path: str) -> Schema:
    """A section; one that refuses unknown keys is closed."""
    schema: Schema = {"type": ["object", "null"]}  # an errorMessage would also replace what editors say of unknown keys
    if path not in SECTIONS:
        return schema
    model = SECTIONS[path]
    schema["properties"] = {key: _sub_key_schema(f"{path}.{key}", model) for key in model.model_fields}
    for key, rule in RULES.items():
        if key.rpartition(".")[0] == path:
            schema["properties"][key.rpartition(".")[2]] = _older_schema(rule)
    if path in CLOSED:
        schema["additionalProperties"] = False
    if path == "optimizer":
        schema.update(_options_of_known_optimizers(schema["properties"]["params"]["properties"]))
    return schema


def _options_of_known_optimizers(options: Schema) -> Schema:
    """An optimizer that is built has these options only; others have options that are not listed yet."""
    built = {"properties": {"type": {"pattern": any_case(OPTIMIZERS.names)}}}
    return {"if": built, "then": {"properties": {"params": {"propertyNames": {"enum": list(options)}}}}}


def _description(path: str) -> str:
    """What the key does, after what becomes of it where that is not the obvious."""
    state, text = state_of(path), describe_key(path).text
    return text if not state.detail or state.state == "older spelling" else f"{state} {text}"


def _hints(path: str) -> Schema:
    state = state_of(path)
    if state.state == "older spelling":
        return {"deprecationMessage": str(state)}
    return {"doNotSuggest": True} if state.state == "set while running only" else {}


@cache
def _pydantic_schemas(model: type[Group]) -> dict[str, Any]:
    schemas: dict[str, Any] = model.model_json_schema()["properties"]
    return schemas
