"""Written values -> typed values: unknown keys, wrong types and values out of range, each as one sentence."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from megatron.neox_arguments.keys.expected import choice, expectation
from megatron.neox_arguments.keys.sections import SECTIONS
from megatron.neox_arguments.keys.types import Group
from megatron.neox_arguments.reading.excerpt import excerpt
from megatron.neox_arguments.reading.other_names import OTHER_NAMES
from megatron.neox_arguments.reading.values import ConfigValues, KeyPath, quote
from megatron.neox_arguments.resolving.draft import Draft
from megatron.registry import did_you_mean


def read_draft(arguments: type[Group], source: ConfigValues) -> Draft:
    """The typed values of a configuration as a draft, with a problem for each key that is unknown or has an impossible value.

    null means "not given". Unknown keys and broken values are left out; broken keys are marked.
    """
    problems: list[str] = []
    written = {
        key: value for key, value in source.values.items() if key in arguments.model_fields and value is not None
    }
    broken: set[str] = set()
    try:
        model = arguments.model_validate(written)
    except ValidationError as error:
        by_path = _group_by_path(error)
        problems = [_type_problem(arguments, source, path, details) for path, details in by_path.items()]
        broken = {str(path[0]) for path in by_path}
        model = arguments.model_validate({key: value for key, value in written.items() if key not in broken})
    values = {key: getattr(model, key) for key in arguments.model_fields}
    draft = Draft(arguments, values, given=frozenset(written), broken=broken, source=source)
    unknown = [key for key in source.values if key not in arguments.model_fields]
    draft.problems = [draft.describe_key(key, f" is not a known key{_hint(key, arguments)}") for key in unknown]
    draft.problems += problems
    return draft


def _hint(key: str, arguments: type[Group]) -> str:
    """What an unknown key was meant to be: one with a similar name, else one that belongs into a section."""
    known = list(arguments.model_fields)
    if key.lower() in OTHER_NAMES:
        return f' (did you mean "{OTHER_NAMES[key.lower()]}"?)'
    similar = did_you_mean(key, known) or did_you_mean(key.lower(), known)
    if similar:
        return similar
    section = next((section for section in SECTIONS if key in SECTIONS[section].model_fields), None)
    if section is not None:
        return f"; write it in its section, as {section}.{key}"
    return "; remove it, or look it up in configs/neox_arguments.md"


def _group_by_path(error: ValidationError) -> dict[KeyPath, ErrorDetails]:
    """One error for each wrong value; for a union of types pydantic reports each member, of which the last is the most general.

    What a list lacks is an error of the list.
    """
    by_path: dict[KeyPath, ErrorDetails] = {}
    for details in error.errors():
        key, *inner = details["loc"]
        positions = [] if details["type"] == "missing" else [part for part in inner if isinstance(part, int)]
        by_path[(key, *positions)] = details
    return by_path


def _type_problem(arguments: type[Group], source: ConfigValues, path: KeyPath, details: ErrorDetails) -> str:
    key, *positions = path
    value: Any = source.values[str(key)]
    for position in positions:
        value = value[position]
    origin = source.value_origin(path)
    place = "" if origin is None else f" ({origin})"
    expected = expectation(details, str(key))
    if details["type"] == "literal_error":
        expected = choice(value, literals(arguments.model_fields[str(key)].annotation))
    return f'"{".".join(map(str, path))}" is {quote(value)}{place}: {expected}{excerpt(source.files, [origin])}'


def literals(annotation: Any) -> list[str]:
    """The names in a Literal, which may be one member of a union."""
    if get_origin(annotation) is Literal:
        return [str(name) for name in get_args(annotation)]
    return [name for member in get_args(annotation) for name in literals(member)]
