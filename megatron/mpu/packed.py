"""Weights in the order in which oneDNN reads them fastest on a CPU, for models that are not trained.

With a few rows a product costs what reading the weight costs. Of a plain weight torch's product reads half as fast as memory allows, of
one in oneDNN's order nearly that; with many rows it is no slower.

Shapes: `in`, `out` features; leading dimensions of activations are free.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Product = Callable[[Tensor, Tensor | None], Tensor]
"""x [..., in] and a bias [out] or None -> x weight^T + bias [..., out]."""

_ROWS = 16  # what the order is chosen for: it is the same from a few rows on, and as good for one
_DTYPES = (torch.float32, torch.bfloat16)


def can_pack(weight: Tensor) -> bool:
    """Whether this weight can be put into another order: on a CPU, of a type that its oneDNN computes in."""
    if weight.device.type != "cpu" or weight.dtype not in _DTYPES or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    return hasattr(torch.ops.mkldnn, "_linear_pointwise") and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")


def packed_product(weight: Tensor) -> Product:
    """The product with a copy of `weight` [out, in] in oneDNN's order. What it computes has no gradients."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _ROWS)
    multiply = torch.ops.mkldnn._linear_pointwise.default

    def product(x: Tensor, bias: Tensor | None) -> Tensor:
        result: Tensor = multiply(x, packed, bias, "none", [], "")
        return result

    return product
