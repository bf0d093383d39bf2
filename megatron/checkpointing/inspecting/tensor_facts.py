"""Single tensors: their statistics and first values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import starmap
from typing import Any

from torch import Tensor

from megatron.checkpointing.inspecting.contents import Contents
from megatron.checkpointing.inspecting.lines import Line, heading, named
from megatron.checkpointing.inspecting.report import statistics_report
from megatron.checkpointing.inspecting.statistics import measure
from megatron.checkpointing.inspecting.tensors import iterate_tensors
from megatron.checkpointing.inspecting.tree_page import shape_text

FIRST_VALUES = 8


def tensor_facts(contents: Contents, names: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """What is known of each of the tensors, one after the other."""

    def facts(name: str, tensor: Tensor) -> Mapping[str, Any]:
        saved, values = contents.tensors[name], tensor.reshape(-1)[:FIRST_VALUES].tolist()
        known = {"name": name, "shape": list(saved.shape), "dtype": saved.dtype, **statistics_report(measure(tensor))}
        return {**known, "first_values": values}

    return starmap(facts, iterate_tensors(contents.path, names))


def tensor_lines(facts: Mapping[str, Any], elements: int) -> list[Line]:
    """The facts of a tensor of so many elements."""
    values = [f"{value:.6g}" for value in facts["first_values"]]
    more = ["..."] if elements > len(values) else []
    numbers = {key: value for key, value in facts.items() if key not in ("name", "shape", "dtype", "first_values")}
    said = {key: f"{value:,}" if isinstance(value, int) else f"{value:.6g}" for key, value in numbers.items()}
    pairs = [
        ("shape", f"{shape_text(facts['shape'])}, {elements:,} elements of {facts['dtype']}"),
        *((key.replace("_", " "), text) for key, text in said.items()),
        ("first values", ", ".join([*values, *more])),
    ]
    return [heading(facts["name"]), *named(pairs)]
