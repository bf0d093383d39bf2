"""The gated MLP: one half of the widened features, activated, gates the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from megatron.fused_kernels import reference
from megatron.model.mlp.base import MLP


class GatedMLP(MLP):
    """`linear2(up * activation(gate))` with `[up | gate] = linear1(x)`.

    fused: `up * activation(gate)` as a function of [up | gate], such as `reference.swiglu`; None = by the activation.
    """

    branches = 2

    def __init__(self, *, fused: Callable[[Tensor], Tensor] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.fused = fused

    def widen(self, hidden: Tensor) -> Tensor:
        """[s, b, h] -> [s, b, w/t]"""
        widened: Tensor = self.linear1(hidden)  # [s, b, 2 w/t]
        if self.fused is not None:
            return self.fused(widened)
        up, gate = widened.chunk(2, dim=-1)  # each [s, b, w/t]
        return reference.gated(up, gate, self.activation)
