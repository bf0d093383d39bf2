"""RMSNorm: unit root mean square, then a learned gain; never an offset."""

from __future__ import annotations

from torch import Tensor

from megatron.fused_kernels.dispatch import choose
from megatron.model.init_methods import ones
from megatron.model.norms.base import Norm
from megatron.model.spec import BuildContext


class RMSNorm(Norm):
    """`x / sqrt(mean(x^2) + epsilon) * scale`."""

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
        self._normalise = choose("rms_norm", wanted=fused, device=context.device)
        self.scale = self._build_parameter(hidden_size, ones)

    def forward(self, hidden: Tensor) -> Tensor:
        """[s, b, h] -> [s, b, h]"""
        normed: Tensor = self._normalise(hidden, self._shared(self.scale), epsilon=self.epsilon)
        return normed
