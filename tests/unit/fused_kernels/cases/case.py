"""One call of an operation of reference.py, whose fused form has to give the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """The operation, what is special about this call, and a function that makes its arguments by name.

    Floating-point tensors are made in fp64 on the CPU and differentiated. constants: those of them that are not; fp32: those that are
    fp32 whatever type is tried; strided: those that are handed over as a part of a wider tensor, so that rows do not follow each other.
    slack: how many roundings to half precision a gradient may be off, where what the backward pass keeps is rounded as well.
    """

    operation: str
    label: str
    arguments: Callable[[], dict[str, Any]]
    constants: frozenset[str] = frozenset()
    fp32: frozenset[str] = frozenset()
    strided: frozenset[str] = frozenset()
    slack: float = 1.0

    @property
    def name(self) -> str:
        return f"{self.operation}, {self.label}"


def random(*shape: int, scale: float = 1.0, offset: float = 0.0) -> Tensor:
    """fp64 normal numbers, which depend on the shape alone; on the meta device none."""
    if _is_meta():
        return torch.empty(*shape, dtype=torch.float64)
    return offset + scale * torch.randn(*shape, dtype=torch.float64, generator=_generator(shape))


def random_integers(*shape: int, low: int, high: int, dtype: torch.dtype = torch.int64) -> Tensor:
    """Numbers from `low` to `high` - 1, which depend on the shape alone; on the meta device none."""
    if _is_meta():
        return torch.empty(*shape, dtype=dtype)
    return torch.randint(low, high, shape, dtype=dtype, generator=_generator(shape))


def _generator(shape: tuple[int, ...]) -> torch.Generator:
    return torch.Generator().manual_seed(sum((place + 1) * size for place, size in enumerate(shape)))


def _is_meta() -> bool:
    return torch.get_default_device().type == "meta"
