"""The gated MLP: one half of the widened features, activated, gates the other."""

from __future__ import annotations

from torch import Tensor

from megatron.fused_kernels import reference
from megatron.model.mlp.base import MLP


class GatedMLP(MLP):
    """`linear2(up * activation(gate))` with `[up | gate] = linear1(x)`."""

    branches = 2

    def widen(self, hidden: Tensor) -> Tensor:
        """[s, b, h] -> [s, b, w/t]"""
        widened: Tensor = self.linear1(hidden)
        up, gate = widened.chunk(2, dim=-1)  # each [s, b, w/t]
        return reference.gated(up, gate, self.activation)
