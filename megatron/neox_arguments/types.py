"""Value types of the configuration: what YAML writes loosely (`1e-4`, `5e8`, one-line numbers in text) becomes what a key means.

YAML 1.1 reads `1e-4` as text, so every numeric type here also reads numbers written as text. True and false are never numbers.
Enumerations whose members live in the menu (`megatron/components.py`) are checked against it, so adding a component there is all
it takes for its name to be accepted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, GetCoreSchemaHandler, WrapValidator
from pydantic_core import PydanticCustomError, core_schema

from megatron.registry import Registry, did_you_mean

DERIVED: Any = None
"""The default of a key that must be given, or follows from others: finished arguments never hold None there, as its type says."""

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


class Group(BaseModel):
    """Base of the groups of keys: immutable, no unknown keys, the text under a field is its description."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        protected_namespaces=(),
        coerce_numbers_to_str=True,
        allow_inf_nan=False,
    )


def read_number(value: Any) -> Any:
    """`value`, as a number when it is text that spells one; refuses booleans (which Python counts as integers)."""
    if isinstance(value, bool):
        raise PydanticCustomError("expected", "expected a number")
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return _parse(value.strip())
    return value


def read_numbers_within(value: Any) -> Any:
    """A nested value with numbers written as text turned into numbers, keys into text and tuples into lists (as JSON has them)."""
    if isinstance(value, dict):
        return {str(key): read_numbers_within(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [read_numbers_within(item) for item in value]
    return value if isinstance(value, bool) else read_number(value)


def _parse(text: str) -> int | float:
    number = float(text)
    return int(text) if text.lstrip("+-").isdigit() else number


def _keep_sequence(value: Any, handler: Callable[[Any], Any]) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise PydanticCustomError("expected", "expected a list")
    return tuple(value)


def lower_case(value: Any) -> Any:
    """`value` in lower case when it is text."""
    return value.lower() if isinstance(value, str) else value


Integer = Annotated[int, BeforeValidator(read_number)]
Number = Annotated[float, BeforeValidator(read_number)]
IntegerOrNumber = Annotated[int | float, BeforeValidator(read_number)]
Section = Annotated[dict[str, Any], BeforeValidator(read_numbers_within)]
"""A dictionary with keys of DeepSpeed's (`fp16`, `zero_optimization`, ...)."""
Texts = tuple[str, ...]
AttentionTypes = Annotated[tuple[str, ...], WrapValidator(_keep_sequence)]
"""Written as `[[[types...], repeat], ...]`, expanded while deriving to one type name a layer."""


@dataclass(frozen=True)
class ComponentName:
    """Annotates a key whose value is a name of `registry`, or one of `planned` (known, but not built: see unsupported.py)."""

    registry: Registry
    planned: tuple[str, ...] = ()

    @property
    def allowed(self) -> tuple[str, ...]:
        return (*self.registry.names, *(name for name in self.planned if name not in self.registry))

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema, handler: Any) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.allowed)}

    def _check(self, value: Any) -> str:
        if isinstance(value, str) and value in self.allowed:
            return value
        raise choice_error(value, built=self.registry.names, known=self.allowed)


def choice_error(value: Any, *, built: Sequence[str], known: Sequence[str]) -> PydanticCustomError:
    """The error of a value that is none of `known`; names those that are `built`."""
    context = {"names": ", ".join(built), "hint": did_you_mean(value, list(known)) if isinstance(value, str) else ""}
    return PydanticCustomError("expected", "choose one of {names}{hint}", context)
