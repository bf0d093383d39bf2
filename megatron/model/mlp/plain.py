"""The plain MLP: widen, activate, narrow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from megatron.model.mlp.base import MLP


class PlainMLP(MLP):
    """`linear2(activation(linear1(x)))`.

    fused: `activation(x + bias)` as a function of both, such as `reference.bias_gelu_tanh`; None = one after the other.
    """

    def __init__(self, *, fused: Callable[[Tensor, Tensor], Tensor] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.fused = fused

    def widen(self, hidden: Tensor) -> Tensor:
        """[s, b, h] -> [s, b, w/t]"""
        if self.fused is not None and self.linear1.bias is not None:
            return self.fused(self.linear1.without_bias(hidden), self.linear1.bias)
        return self.activation(self.linear1(hidden))
