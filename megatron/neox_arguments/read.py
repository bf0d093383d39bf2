"""Written values -> typed values: unknown keys, wrong types and values out of range, each as one sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from megatron.neox_arguments.draft import Draft
from megatron.neox_arguments.excerpt import excerpt
from megatron.neox_arguments.types import Group
from megatron.neox_arguments.values import ConfigValues, quote
from megatron.registry import did_you_mean

_EXPECTED = {
    "bool_parsing": "expected true or false",
    "bool_type": "expected true or false",
    "dict_type": "expected keys and values, as in {key: value}",
    "finite_number": "expected a finite number",
    "float_parsing": "expected a number",
    "float_type": "expected a number",
    "int_from_float": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_type": "expected a whole number",
    "string_type": "expected text",
    "tuple_type": "expected a list, as in [a, b]",
}


def read_draft(arguments: type[Group], source: ConfigValues) -> Draft:
    """The typed values of a configuration as a draft, with a problem for each key that is unknown or has an impossible value.

    null means "not given". Unknown keys and broken values are left out; broken keys are marked.
    """
    problems = list(_unknown_keys(arguments, source))
    written = {
        key: value for key, value in source.values.items() if key in arguments.model_fields and value is not None
    }
    broken: set[str] = set()
    try:
        model = arguments.model_validate(written)
    except ValidationError as error:
        by_key = _group_by_key(error)
        problems += [_type_problem(arguments, source, key, errors) for key, errors in by_key.items()]
        broken = set(by_key)
        model = arguments.model_validate({key: value for key, value in written.items() if key not in broken})
    values = {key: getattr(model, key) for key in arguments.model_fields}
    draft = Draft(arguments, values, given=frozenset(written), broken=broken, source=source)
    draft.problems.extend(problems)
    return draft


def _unknown_keys(arguments: type[Group], source: ConfigValues) -> Iterator[str]:
    for key in source.values:
        if key in arguments.model_fields:
            continue
        origin = source.origin(key)
        place = "" if origin is None else f" ({origin})"
        hint = (
            did_you_mean(key, list(arguments.model_fields)) or "; remove it, or look it up in configs/neox_arguments.md"
        )
        yield f'"{key}"{place} is not a known key{hint}{excerpt(source.files, [origin])}'


def _group_by_key(error: ValidationError) -> dict[str, list[ErrorDetails]]:
    by_key: dict[str, list[ErrorDetails]] = {}
    for details in error.errors():
        by_key.setdefault(str(details["loc"][0]), []).append(details)
    return by_key


def _type_problem(arguments: type[Group], source: ConfigValues, key: str, errors: list[ErrorDetails]) -> str:
    """One sentence for one key; for a union of types pydantic reports each member, of which the last is the most general."""
    details = errors[-1]
    positions = [part for part in details["loc"][1:] if isinstance(part, int)]
    name = ".".join([key, *map(str, positions)])
    value: Any = source.values[key]
    for position in positions:
        value = value[position]
    origin = source.value_origin((key, *positions))
    place = "" if origin is None else f" ({origin})"
    expected = _expectation(details)
    if details["type"] == "literal_error":
        options = [str(option) for option in get_args(arguments.model_fields[key].annotation) if option is not None]
        hint = did_you_mean(value, options) if isinstance(value, str) else ""
        expected = f"choose one of {', '.join(options)}{hint}"
    return f'"{name}" is {quote(value)}{place}: {expected}{excerpt(source.files, [origin])}'


def _expectation(details: ErrorDetails) -> str:
    context: Mapping[str, Any] = details.get("ctx", {})
    match details["type"]:
        case "greater_than":
            return f"must be greater than {context['gt']}"
        case "greater_than_equal":
            return f"must be at least {context['ge']}"
        case "less_than":
            return f"must be less than {context['lt']}"
        case "less_than_equal":
            return f"must be at most {context['le']}"
        case kind:
            return _EXPECTED.get(kind, details["msg"])
