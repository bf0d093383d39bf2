"""The plain MLP: widen, activate, narrow."""

from __future__ import annotations

from torch import Tensor

from megatron.model.mlp.base import MLP


class PlainMLP(MLP):
    """`linear2(activation(linear1(x)))`."""

    def widen(self, hidden: Tensor) -> Tensor:
        """[s, b, h] -> [s, b, w/t]"""
        return self.activation(self.linear1(hidden))
