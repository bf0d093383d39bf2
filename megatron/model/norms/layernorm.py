"""LayerNorm: zero mean, unit variance, then a learned gain and (unless `use_bias_in_norms: false`) offset."""

from __future__ import annotations

from torch import Tensor

from megatron.fused_kernels.dispatch import choose
from megatron.model.init_methods import ones, zeros
from megatron.model.norms.base import Norm
from megatron.model.spec import BuildContext


class LayerNorm(Norm):
    """`(x - mean) / sqrt(variance + epsilon) * weight + bias`."""

    def __init__(
        self,
        hidden_size: int,
        *,
        epsilon: float,
        use_bias: bool,
        context: BuildContext,
        is_split: bool | None = None,
        fused: bool = False,
    ) -> None:
        super().__init__(hidden_size, epsilon=epsilon, use_bias=use_bias, context=context, is_split=is_split)
        self._normalise = choose("layer_norm", wanted=fused, device=context.device)
        self.weight = self._build_parameter(hidden_size, ones)
        self.bias = self._build_parameter(hidden_size, zeros) if use_bias else None

    def forward(self, hidden: Tensor) -> Tensor:
        """[s, b, h] -> [s, b, h]"""
        bias = None if self.bias is None else self._shared(self.bias)
        normed: Tensor = self._normalise(hidden, self._shared(self.weight), bias, epsilon=self.epsilon)
        return normed
