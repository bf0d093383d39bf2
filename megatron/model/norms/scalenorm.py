"""ScaleNorm: unit length, then one learned gain for all features (Nguyen and Salazar)."""

from __future__ import annotations

from torch import Tensor

from megatron.fused_kernels import reference
from megatron.model.init_methods import ones
from megatron.model.norms.base import Norm
from megatron.model.spec import BuildContext


class ScaleNorm(Norm):
    """`x / max(|x|, epsilon) * g`, g a single number."""

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
        self.g = self._build_parameter(1, ones)

    def forward(self, hidden: Tensor) -> Tensor:
        """[s, b, h] -> [s, b, h]"""
        return reference.scale_norm(hidden, self._shared(self.g), epsilon=self.epsilon)
