"""Where two checkpoints differ: every tensor of both, whatever layouts wrote them, the counters, and the settings of the runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from megatron.checkpointing.compare import relative_deviations
from megatron.checkpointing.inspecting.blocks import BLOCK_ELEMENTS, blocks
from megatron.checkpointing.inspecting.contents import Contents
from megatron.checkpointing.inspecting.tensors import TensorReader
from megatron.checkpointing.names import dtype_name
from megatron.neox_arguments import NeoXArgs

_BITS = {8: torch.int64, 4: torch.int32, 2: torch.int16}


@dataclass(frozen=True)
class Element:
    """An element of two tensors: its index in each dimension, and both values."""

    position: tuple[int, ...]
    first: float
    second: float


@dataclass(frozen=True)
class TensorDifference:
    """How a tensor differs. problem: why its values cannot all be the same ("only in the first", another shape or dtype), else empty.

    count: elements that are not equal to the bit, `element` the first of them; largest: the largest absolute difference; relative: the
    same as `compare.Deviations` (see FLOOR), but for elements that are equal to the bit, which do not deviate, NaN or not. Both are infinite where a
    difference is no number or values cannot be compared. scale: the largest absolute value of the second.
    """

    name: str
    problem: str = ""
    count: int = 0
    element: Element | None = None
    largest: float = 0.0
    relative: float = 0.0
    scale: float = 0.0

    @property
    def is_equal(self) -> bool:
        """To the bit."""
        return not self.problem and not self.count


@dataclass(frozen=True)
class Comparison:
    """tensors: every one of both, in the order of names. counters: iteration, counters and scalars that differ; settings: those that do."""

    tensors: tuple[TensorDifference, ...]
    counters: Mapping[str, tuple[Any, Any]]
    settings: Mapping[str, tuple[Any, Any]]

    def is_equal(self, tolerance: float | None) -> bool:
        """Whether tensors and counters are equal to the bit, or deviate by at most `tolerance`. Settings do not count."""
        if tolerance is None:
            return not self.counters and all(tensor.is_equal for tensor in self.tensors)
        return all(_are_close(*values, tolerance) for values in self.counters.values()) and all(
            not tensor.problem and tensor.relative <= tolerance for tensor in self.tensors
        )


def compare_contents(first: Contents, second: Contents) -> Comparison:
    """Compare two checkpoints; one tensor of each is in memory at a time. Raises DamagedCheckpoint for one that cannot be read."""
    ours, theirs = TensorReader(first.path), TensorReader(second.path)
    found = [_compared(name, ours, theirs) for name in sorted(ours.keys() | theirs.keys())]
    return Comparison(
        tuple(_with_relative(found)), counter_differences(first, second), settings_differences(first, second)
    )


def compare_tensors(name: str, first: Tensor, second: Tensor) -> TensorDifference:
    """How a tensor differs, but for `relative`."""
    if first.shape != second.shape:
        problem = f"shape {list(first.shape)} in the first, {list(second.shape)} in the second"
        return TensorDifference(name, problem, largest=math.inf, scale=math.inf)
    problem, count, largest, scale, element = "", 0, 0.0, 0.0, None
    if first.dtype != second.dtype:
        problem = f"{dtype_name(first.dtype)} in the first, {dtype_name(second.dtype)} in the second"
        first, second = first.double(), second.double()
    for number, (one, other) in enumerate(blocks(first, second)):
        bits = _BITS[one.element_size()]
        differing = one.view(bits) != other.view(bits)
        scale = max(scale, _largest(other))
        if not (here := int(differing.count_nonzero())):
            continue
        if element is None:
            at = int(differing.nonzero()[0])
            element = Element(_position(number * BLOCK_ELEMENTS + at, first.shape), float(one[at]), float(other[at]))
        count += here
        largest = max(largest, _largest(one[differing].double() - other[differing].double()))
    return TensorDifference(name, problem, count, element, largest, scale=scale)


def counter_differences(first: Contents, second: Contents) -> dict[str, tuple[Any, Any]]:
    """Iteration, counters of the run and scalars of the optimizer that differ, both values; None for one that is not there."""
    ours, theirs = (
        {"iteration": one.state.iteration, **one.state.run_state, **one.state.scalars} for one in (first, second)
    )
    return _differing(ours, theirs, {})


def settings_differences(first: Contents, second: Contents) -> dict[str, tuple[Any, Any]]:
    """Settings that differ, both values; nothing where one of the two does not say."""
    if first.settings is None or second.settings is None:
        return {}
    defaults = {key: field.default for key, field in NeoXArgs.model_fields.items()}
    return _differing(first.settings, second.settings, defaults)


def _compared(name: str, ours: TensorReader, theirs: TensorReader) -> TensorDifference:
    if name not in theirs or name not in ours:
        where = "first" if name in ours else "second"
        return TensorDifference(name, f"only in the {where}", largest=math.inf, scale=math.inf)
    return compare_tensors(name, ours[name], theirs[name])


def _with_relative(found: list[TensorDifference]) -> Iterator[TensorDifference]:
    scales = {one.name: one.scale for one in found if math.isfinite(one.scale)}
    differing = {one.name: one.largest if one.name in scales else math.inf for one in found if one.largest}
    relative = relative_deviations(differing, scales)
    return (replace(one, relative=relative.get(one.name, 0.0)) for one in found)


def _largest(values: Tensor) -> float:
    """The largest absolute value; infinite where one is no number."""
    found = float(values.abs().max()) if values.numel() else 0.0
    return math.inf if math.isnan(found) else found


def _position(index: int, shape: torch.Size) -> tuple[int, ...]:
    return tuple(int(number) for number in torch.unravel_index(torch.tensor(index), shape)) if shape else ()


def _differing(
    first: Mapping[str, Any], second: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    pairs = {
        key: tuple(values.get(key, defaults.get(key)) for values in (first, second)) for key in {**first, **second}
    }
    return {key: (ours, theirs) for key, (ours, theirs) in pairs.items() if ours != theirs}


def _are_close(first: Any, second: Any, tolerance: float) -> bool:
    """Whether two values of JSON are equal, but for floats, which may deviate."""
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        return all(_are_close(one, other, tolerance) for one, other in zip(first, second, strict=True))
    if isinstance(first, float) and isinstance(second, float):
        return math.isclose(first, second, rel_tol=tolerance)
    return bool(first == second)
