"""Value types of the configuration: what YAML writes loosely (`1e-4`, `5e8`, one-line numbers in text) becomes what a key means.

YAML 1.1 reads `1e-4` as text, so every numeric type here also reads numbers written as text. True and false are never numbers.
Enumerations whose members live in the menu (`megatron/components.py`) are checked against it, so adding a component there is all
it takes for its name to be accepted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, GetCoreSchemaHandler, WrapValidator
from pydantic_core import PydanticCustomError, PydanticKnownError, core_schema

from megatron.registry import Registry, did_you_mean

DERIVED: Any = None
"""The default of a key that must be given, or follows from others: finished arguments never hold None there, as its type says."""

LARGEST_INTEGER = 2**63 - 1
"""Whole numbers beyond this do not fit into the 64 bits that tensors and files count with."""

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


class Group(BaseModel):
    """Base of the groups of keys: immutable, no unknown keys, the text under a field is its description."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        defer_build=True,
        protected_namespaces=(),
        coerce_numbers_to_str=True,
        allow_inf_nan=False,
    )


def read_number(value: Any) -> Any:
    """`value`, as a number when it is text that spells one."""
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return _parse(value.strip())
    return value


def _only_number(value: Any) -> Any:
    """A number, also from text. Other text is refused here, as pydantic reads more (`1_0`); so is true (Python counts it as 1)."""
    number = read_number(value)
    if isinstance(number, str | bool):
        raise PydanticKnownError("float_parsing" if isinstance(number, str) else "float_type")
    return number


def _only_whole_number(value: Any) -> Any:
    """As `_only_number`, for keys that take whole numbers."""
    number = read_number(value)
    if isinstance(number, str | bool):
        raise PydanticKnownError("int_parsing" if isinstance(number, str) else "int_type")
    if isinstance(number, int | float) and LARGEST_INTEGER < abs(number) < math.inf:
        raise PydanticCustomError("expected", "expected a whole number below 2^63; use a smaller one")
    return number


def read_numbers_within(value: Any) -> Any:
    """A nested value with numbers written as text turned into numbers, keys into text and tuples into lists (as JSON has them)."""
    if isinstance(value, dict):
        return {str(key): read_numbers_within(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [read_numbers_within(item) for item in value]
    return read_number(value)


def whole_number(value: object) -> int | None:
    """The number above 0 that `value` is or spells; None for anything else, which is for the checks of its key to refuse."""
    text = str(value)
    return int(text) if text.isdigit() and int(text) > 0 else None


def _parse(text: str) -> int | float:
    number = float(text)
    return int(text) if text.lstrip("+-").isdigit() else number


def _whole_if_possible(value: Any) -> Any:
    number = _only_number(value)
    is_whole = isinstance(number, float) and number.is_integer() and abs(number) <= LARGEST_INTEGER
    return int(number) if is_whole else number


def _keep_sequence(value: Any, handler: Callable[[Any], Any]) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise PydanticCustomError("expected", "expected a list; write [[[global], all]]")
    return tuple(value)


def lower_case(value: Any) -> Any:
    """`value` in lower case when it is text."""
    return value.lower() if isinstance(value, str) else value


Integer = Annotated[int, BeforeValidator(_only_whole_number)]
Number = Annotated[float, BeforeValidator(_only_number)]
IntegerOrNumber = Annotated[int | float, BeforeValidator(_only_number)]
WholeIfPossible = Annotated[int | float, BeforeValidator(_whole_if_possible)]
"""A number that nearly always is a whole one, and then is kept as such however it is written."""
Section = Annotated[dict[str, Any], BeforeValidator(read_numbers_within)]
"""A dictionary with keys of DeepSpeed's (`fp16`, `zero_optimization`, ...)."""
Texts = tuple[str, ...]
Words = str | tuple[str, ...]
"""Words of a command line: in one text as a shell reads it, or one by one."""
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
