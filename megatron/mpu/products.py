"""How a linear layer multiplies: its three matrix products, apart from what the ranks exchange around them.

Shapes: `in`, `out` features of this rank; `rows` is all leading dimensions together.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor
from torch.nn import functional


class Products(Protocol):
    """One product of the forward pass and two of the backward pass, none of which autograd sees."""

    def output(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """x [..., in], weight [out, in] and bias [out] or None -> x weight^T + bias [..., out]."""
        ...

    def input_gradient(self, gradient: Tensor, weight: Tensor) -> Tensor:
        """The gradient [..., out] of the output and weight [out, in] -> that of the input [..., in]."""
        ...

    def weight_gradient(self, gradient: Tensor, x: Tensor) -> Tensor:
        """The gradient [rows, out] of the output and the input [rows, in] -> that of the weight [out, in]."""
        ...


class PlainProducts:
    """In the type of the operands."""

    def output(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """See Products."""
        return functional.linear(x, weight, bias)

    def input_gradient(self, gradient: Tensor, weight: Tensor) -> Tensor:
        """See Products."""
        return gradient @ weight

    def weight_gradient(self, gradient: Tensor, x: Tensor) -> Tensor:
        """See Products."""
        return gradient.T @ x


PLAIN = PlainProducts()
