"""LayerNorm without parameters."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from megatron.fused_kernels.dispatch import choose
from megatron.model.norms.base import Norm
from megatron.model.spec import BuildContext


class NonParametricLayerNorm(Norm):
    """`(x - mean) / sqrt(variance + epsilon)`."""

    def __init__(self, hidden_size: int, *, context: BuildContext, fused: bool = False, **options: Any) -> None:
        super().__init__(hidden_size, context=context, **options)
        self._normalise = choose("layer_norm", wanted=fused, device=context.device)

    def forward(self, hidden: Tensor) -> Tensor:
        """[s, b, h] -> [s, b, h]"""
        normed: Tensor = self._normalise(hidden, None, None, epsilon=self.epsilon)
        return normed
