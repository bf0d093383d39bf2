"""The norms of NVIDIA's Transformer Engine: the numbers, parameters and checkpoints of `layernorm` and `rmsnorm`, by its kernels."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from megatron.model.norms.layernorm import LayerNorm
from megatron.model.norms.rmsnorm import RMSNorm
from megatron.mpu import transformer_engine


class TransformerEngineLayerNorm(LayerNorm):
    """`layernorm`."""

    def forward(self, hidden: Tensor) -> Tensor:
        """[s, b, h] -> [s, b, h]"""
        weight = self._shared(self.weight)
        bias = torch.zeros_like(weight) if self.bias is None else self._shared(self.bias)  # its kernel adds one always
        return self._kernel(hidden, weight=weight, bias=bias)

    @cached_property
    def _kernel(self) -> transformer_engine.Norm:
        return transformer_engine.Norm(lambda library: library.layer_norm, epsilon=self.epsilon)


class TransformerEngineRMSNorm(RMSNorm):
    """`rmsnorm`."""

    def forward(self, hidden: Tensor) -> Tensor:
        """[s, b, h] -> [s, b, h]"""
        return self._kernel(hidden, weight=self._shared(self.scale))

    @cached_property
    def _kernel(self) -> transformer_engine.Norm:
        return transformer_engine.Norm(lambda library: library.rms_norm, epsilon=self.epsilon)
