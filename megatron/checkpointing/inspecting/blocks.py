"""A tensor's values in blocks that stay in the processor's cache: results of a pass over it need no memory of its size."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

BLOCK_ELEMENTS = 1 << 18


def blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The values of tensors of one shape as vectors of at most BLOCK_ELEMENTS, side by side; views where a tensor is contiguous."""
    return zip(*(tensor.reshape(-1).split(BLOCK_ELEMENTS) for tensor in tensors), strict=True)
