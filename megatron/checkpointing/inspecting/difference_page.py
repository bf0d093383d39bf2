"""Where two checkpoints differ, as lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from megatron.checkpointing.inspecting.differences import Comparison, TensorDifference
from megatron.checkpointing.inspecting.lines import Line, columns, heading, named
from megatron.neox_arguments.reading.values import quote

SHOWN = 30


def comparison_lines(found: Comparison, first: Path, second: Path, *, tolerance: float | None) -> Iterator[Line]:
    """The first tensor that differs, then all that do, counters, settings, and the verdict."""
    yield from named([("first", str(first)), ("second", str(second))])
    differing = [tensor for tensor in found.tensors if not tensor.is_equal]
    if differing:
        yield heading("the first tensor that differs, by name")
        yield [("  " + _first(differing[0]), "")]
        yield heading(f"tensors that differ: {len(differing):,} of {len(found.tensors):,}")
        yield from _tensor_lines(sorted(differing, key=lambda tensor: (-tensor.relative, tensor.name)))
    for title, values in (("counters that differ", found.counters), ("settings that differ", found.settings)):
        if values:
            yield heading(title)
            yield from _value_lines(values)
    yield _verdict(found, tolerance)


def _first(tensor: TensorDifference) -> str:
    if tensor.element is None:
        return f"{tensor.name}: {tensor.problem}"
    element = tensor.element
    problem = f" ({tensor.problem})" if tensor.problem else ""
    return f"{tensor.name}{list(element.position)}: {element.first!r} in the first, {element.second!r} in the second{problem}"


def _tensor_lines(differing: list[TensorDifference]) -> Iterator[Line]:
    header = [("", ""), ("largest difference", "dim"), ("relative", "dim"), ("elements", "dim"), ("tensor", "dim")]
    rows = [
        [
            ("", ""),
            (f"{tensor.largest:.3e}", ""),
            (f"{tensor.relative:.3e}", "bold"),
            (f"{tensor.count:,}", ""),
            (tensor.name + (f": {tensor.problem}" if tensor.problem else ""), "red" if tensor.problem else ""),
        ]
        for tensor in differing[:SHOWN]
    ]
    yield from columns([header, *rows], right=(1, 2, 3))
    if len(differing) > SHOWN:
        yield [(f"  and {len(differing) - SHOWN:,} more, all of which --json has", "dim")]


def _value_lines(values: Mapping[str, tuple[Any, Any]]) -> list[Line]:
    header = [("", ""), ("", ""), ("first", "dim"), ("second", "dim")]
    rows = [
        [("", ""), (key, ""), *((quote(value, limit=50), "bold") for value in pair)] for key, pair in values.items()
    ]
    return columns([header, *rows])


def _verdict(found: Comparison, tolerance: float | None) -> Line:
    largest = max((tensor.relative for tensor in found.tensors), default=0.0)
    if found.is_equal(None):
        return [(f"equal to the bit: {len(found.tensors):,} tensors, and the counters", "bold green")]
    if tolerance is not None and found.is_equal(tolerance):
        return [(f"equal within {tolerance:g}: the largest relative deviation is {largest:.3g}", "bold green")]
    return [(f"different: the largest relative deviation is {largest:.3g}", "bold red")]
