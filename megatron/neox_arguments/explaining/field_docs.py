"""What a key is, in words: type, allowed values, default and description, read from its field.

For whoever explains keys: the page of all keys, `deepy.py explain`, `deepy.py check`.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from megatron.components import ATTENTION
from megatron.neox_arguments.arguments import NeoXArgs
from megatron.neox_arguments.explaining.attribute_docs import attribute_doc
from megatron.neox_arguments.keys.planned import PLANNED
from megatron.neox_arguments.keys.types import ComponentName, Group, Section
from megatron.neox_arguments.reading.values import quote
from megatron.neox_arguments.resolving.resolve import REQUIRED

_TYPES: dict[Any, str] = {bool: "true or false", int: "whole number", float: "number", str: "text", Any: "anything"}
_PLURALS: dict[Any, str] = {str: "list of texts", int: "list of whole numbers", float: "list of numbers"}
_BOUNDS = {"ge": "at least {}", "gt": "above {}", "le": "at most {}", "lt": "below {}"}


@dataclass(frozen=True)
class FieldDoc:
    """A key in words. `group` is a name of GROUPS; `default` says what holds when the key is not given; `text` is one paragraph."""

    key: str
    group: str
    type: str
    allowed: str
    default: str
    text: str


def _groups() -> dict[str, type[Group]]:
    """The groups in the order of NeoXArgs: `ModelArgs` of model.py is "model"."""
    bases = [base for base in NeoXArgs.__bases__ if issubclass(base, Group)]
    return {base.__module__.rpartition(".")[2]: base for base in bases}


GROUPS: dict[str, type[Group]] = _groups()
"""The classes that hold the keys, by short name, in reading order."""

GROUP_OF: dict[str, str] = {key: name for name, group in GROUPS.items() for key in group.model_fields}
"""The group of each key."""


def describe_group(name: str) -> str:
    """One line about a group of keys."""
    return _paragraph(GROUPS[name].__doc__)


def describe_field(key: str) -> FieldDoc:
    """A key in words. Raises KeyError for a name that is no key."""
    return describe(key, GROUP_OF[key], NeoXArgs)


def describe(key: str, group: str, model: type[Group]) -> FieldDoc:
    """A field of `model` in words; for keys within sections, `key` is the whole path and `group` the section."""
    name = key.rpartition(".")[2]
    field, text = model.model_fields[name], _paragraph(attribute_doc(model, name))
    return FieldDoc(key, group, _type_in_words(key, field), _allowed(key, field), _default(key, field, text), text)


def _paragraph(text: str | None) -> str:
    return " ".join(inspect.cleandoc(text or "").split("\n\n")[0].split())


def _type_in_words(key: str, field: FieldInfo) -> str:
    if key == "attention_config":
        return "list of [[types...], repeat]"
    if _component(field) is not None:
        return "name"
    members = _members(field.annotation)
    if set(members) == {int, float}:
        return "number"
    return " or ".join(dict.fromkeys(map(_word, members)))


def _members(annotation: Any) -> list[Any]:
    """The types of a union, without None."""
    if get_origin(annotation) is Annotated and annotation != Section:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [member for part in get_args(annotation) for member in _members(part)]
    return [] if annotation is type(None) else [annotation]


def _word(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Literal:
        return "name"
    if origin is tuple:
        return _PLURALS[_members(get_args(annotation)[0])[0]]
    return "section of keys and values" if annotation == Section or origin is dict else _TYPES[annotation]


def _component(field: FieldInfo) -> ComponentName | None:
    return next((item for item in _annotations(field) if isinstance(item, ComponentName)), None)


def _annotations(field: FieldInfo) -> Iterable[Any]:
    """What annotates a field: beside its type, or within it."""
    yield from field.metadata
    if get_origin(field.annotation) in (Union, types.UnionType):
        for member in get_args(field.annotation):
            yield from get_args(member)[1:] if get_origin(member) is Annotated else ()


def _allowed(key: str, field: FieldInfo) -> str:
    component = _component(field)
    if component is not None:
        return _names(component.registry.names, component.planned)
    if key == "attention_config":
        return _names(ATTENTION.names, PLANNED[key])
    if _members(field.annotation) == [bool]:
        return "true, false"
    for member in _members(field.annotation):
        if get_origin(member) is Literal:
            return ", ".join(map(str, get_args(member)))
    bounds = [
        words.format(quote(getattr(item, name)))
        for name, words in _BOUNDS.items()
        for item in field.metadata
        if getattr(item, name, None) is not None
    ]
    return ", ".join(bounds)


def _names(built: tuple[str, ...], planned: tuple[str, ...]) -> str:
    missing = [name for name in planned if name not in built]
    return ", ".join(built) + (f" (not built yet: {', '.join(missing)})" if missing else "")


def _default(key: str, field: FieldInfo, text: str) -> str:
    if field.default is not None:
        return quote(field.default)
    if key in REQUIRED:
        return "none: every model needs it"
    sentence = re.search(r"\b(?:Default:?|Derived(?: from|:)?) (.+?)(?:\. |\.$)", text)
    return sentence.group(1).partition(", or another way")[0] if sentence else "none"
