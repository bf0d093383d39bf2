"""What a key expects instead of a wrong value, with the nearest value that would do, in words."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import ErrorDetails

from megatron.neox_arguments.keys.types import read_number
from megatron.registry import did_you_mean

_SYNONYMS = {
    "bf16": "bfloat16",
    "float16": "fp16",
    "half": "fp16",
    "float32": "fp32",
    "float": "fp32",
    "rope": "rotary",
    "layer_norm": "layernorm",
    "rms_norm": "rmsnorm",
}
"""Names that other programs use, where they are not similar enough to be found by their letters."""

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")

_MEANINGS = {"warmup": ", as it is a share of the decay iterations", "rotary_pct": ", as it is a share of the channels"}
"""What is easily mistaken about a key that has an upper limit."""

_LISTS = {
    "rampup_batch_size": "expected three whole numbers, [first batch, increment, samples]; give them, as in [32, 32, 100000]"
}
"""What to say of lists whose places mean something."""

_SECTION_EXAMPLES = {
    "optimizer": "{type: Adam, params: {lr: 1e-4}}",
    "zero_optimization": "{stage: 1}",
    "fp16": "{enabled: true}",
    "bf16": "{enabled: true}",
    "params": "{lr: 1e-4}",
}


def expectation(details: ErrorDetails, key: str = "") -> str:
    """The reason and the fix for one error of pydantic's about the value of `key`."""
    context: Mapping[str, Any] = details.get("ctx", {})
    value = details.get("input")
    match details["type"]:
        case "greater_than":
            return f"must be greater than {context['gt']:g}; raise it"
        case "greater_than_equal":
            return f"must be at least {context['ge']:g}; set it to {context['ge']:g} or more"
        case "less_than":
            return f"must be less than {context['lt']:g}; lower it"
        case "less_than_equal":
            meaning = _MEANINGS.get(key, "")
            return f"must be at most {context['le']:g}{meaning}; set it to {context['le']:g} or less"
        case "int_from_float" | "int_parsing" | "int_type" | "int_parsing_size":
            return f"expected a whole number; {_whole_number_like(value)}"
        case "float_parsing" | "float_type":
            return f"expected a number; {_number_like(value)}"
        case "finite_number":
            return "expected a finite number; write one such as 0.1 or 1e-4"
        case "bool_parsing" | "bool_type":
            return "expected true or false; write one of the two"
        case "string_type":
            return f"expected text; {_text_like(value)}"
        case "tuple_type" | "too_short" | "missing" | "too_long" if key in _LISTS:
            return _LISTS[key]
        case "tuple_type":
            return f"expected a list; {_list_like(value)}"
        case "too_short" | "missing":
            return "there are too few values; add the missing ones"
        case "too_long":
            return "there are too many values; remove some"
        case "dict_type":
            example = _SECTION_EXAMPLES.get(key)
            return f"expected keys and values; write {example or '{key: value}'}"
        case _:
            return details["msg"]


def choice(value: Any, names: Sequence[str]) -> str:
    """The reason and the fix for a value that is none of `names`."""
    synonym = _SYNONYMS.get(value.lower(), "") if isinstance(value, str) else ""
    near = f' (did you mean "{synonym}"?)' if synonym in names else ""
    if not near and isinstance(value, str):
        near = did_you_mean(value, list(names)) or did_you_mean(value.lower(), list(names))
    return f"choose one of {', '.join(names)}{near}"


def _whole_number_like(value: Any) -> str:
    near = _near(value)
    if near is None or not math.isfinite(near):
        return "write digits, such as 1"
    if near != int(near):
        return f"use {math.floor(near)} or {math.ceil(near)}"
    return f"write {int(near)}"


def _number_like(value: Any) -> str:
    near = _near(value)
    return "write one such as 0.1 or 1e-4" if near is None or not math.isfinite(near) else f"write {near:g}"


def _near(value: Any) -> int | float | None:
    """The number that was probably meant: `320,000`, `1 000`, `2k`, `1%`, `[4]`."""
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if not isinstance(value, str):
        return None
    text = value.strip().lower()
    if text in _WORDS:
        return _WORDS.index(text)
    match = re.fullmatch(r"([-+\d.][\d.,_ ]*(?:e_?[-+]?\d+)?)([km%]?)", text)
    if match is None:
        return None
    number: int | float | str = read_number(re.sub(r"[,_ ]", "", match[1].replace("e_", "e-")))
    if isinstance(number, str):
        return None
    return number * {"": 1, "%": 0.01, "k": 1000, "m": 1_000_000}[match[2]]


def _text_like(value: Any) -> str:
    if not isinstance(value, list | tuple):
        return "write it in quotes"
    return f"write one, such as {value[0]}" if value and isinstance(value[0], str) else "write one"


def _list_like(value: Any) -> str:
    if isinstance(value, str) and "," in value:
        return f"write [{', '.join(part.strip() for part in value.split(','))}]"
    return "write [a, b]" if isinstance(value, Mapping) or value is None else f"write [{value}]"
