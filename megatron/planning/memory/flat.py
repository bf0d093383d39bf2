"""How parameters lie in the flat buffers of training without DeepSpeed: the arithmetic, for the engine and for the planner."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

ALIGNMENT = 64
"""Elements to a multiple of which every parameter begins: a cache line of a CPU, what the matrix units of a GPU want of an address."""

DEFAULT_BUCKET = 40_000_000


def aligned(elements: int) -> int:
    """The room that a parameter takes."""
    return math.ceil(elements / ALIGNMENT) * ALIGNMENT


def bucket_length(sizes: Iterable[int], *, replicas: int) -> int:
    """Elements of a bucket with parameters of these sizes: every one of the replicas has an equal part of it, which is aligned as well."""
    multiple = ALIGNMENT * replicas
    return math.ceil(sum(map(aligned, sizes)) / multiple) * multiple


def bucket_limit(zero_optimization: Mapping[str, Any], *, replicas: int) -> float:
    """Elements after which a bucket is full: without other replicas there is nothing to exchange, and one is enough."""
    return math.inf if replicas == 1 else int(zero_optimization.get("reduce_bucket_size", DEFAULT_BUCKET))
