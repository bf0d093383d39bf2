"""Norms over the channels of all heads together, which are split over the tensor-parallel ranks: sums of each rank's part are added up.

Shapes: `b` micro-batch, `s` sequence, `n` local heads, `d` head size, `t` tensor-parallel size; a vector has n d t channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial

import torch
from torch import Tensor, nn

from megatron.model.init_methods import ones, zeros
from megatron.model.spec import BuildContext
from megatron.mpu.mappings import copy_to_tensor_region, reduce_from_tensor_region
from megatron.mpu.shard import sharded_parameter


class AllHeadsNorm(nn.Module, ABC):
    """Base: [b, n, s, d] -> [b, n, s, d], each token's channels in all heads of all ranks normalised together.

    width: channels of all heads, `n d t`; the other arguments are those of every norm.
    """

    def __init__(self, width: int, *, epsilon: float, use_bias: bool, context: BuildContext) -> None:
        super().__init__()
        self.width = width
        self.epsilon = epsilon
        self._group = context.tensor_group
        self._make = partial(sharded_parameter, (width,), dim=0, **context.placement)

    def forward(self, heads: Tensor) -> Tensor:
        """[b, n, s, d] -> [b, n, s, d]; computed in at least fp32 and rounded once."""
        return self.normalise(heads.to(torch.promote_types(heads.dtype, torch.float32))).to(heads.dtype)

    @abstractmethod
    def normalise(self, heads: Tensor) -> Tensor:
        """`forward` in the type of its input."""

    def _mean(self, heads: Tensor) -> Tensor:
        """[b, n, s, d] -> [b, 1, s, 1]: the mean over the channels of all heads of all ranks."""
        total = reduce_from_tensor_region(heads.sum(dim=(1, 3), keepdim=True), self._group)
        # Every rank goes on with its own heads: what they say about the mean is summed in the backward pass.
        return copy_to_tensor_region(total, self._group) / self.width

    def _root_mean_square(self, heads: Tensor) -> Tensor:
        return (self._mean(heads.square()) + self.epsilon).sqrt()

    def _by_head(self, parameter: Tensor, heads: Tensor) -> Tensor:
        """This rank's part of a parameter, [n d], in the shape [n, 1, d] in which it meets the heads."""
        return parameter.view(heads.shape[1], 1, heads.shape[3])


class AllHeadsRMSNorm(AllHeadsNorm):
    """RMSNorm, with the parameter `scale` [n d t]."""

    def __init__(self, width: int, *, epsilon: float, use_bias: bool, context: BuildContext) -> None:
        super().__init__(width, epsilon=epsilon, use_bias=use_bias, context=context)
        self.scale = self._make(init=ones)

    def normalise(self, heads: Tensor) -> Tensor:
        """[b, n, s, d] -> [b, n, s, d]"""
        return heads / self._root_mean_square(heads) * self._by_head(self.scale, heads)


class AllHeadsLayerNorm(AllHeadsNorm):
    """LayerNorm, with the parameters `weight` and (unless `use_bias_in_norms: false`) `bias`, each [n d t]."""

    def __init__(self, width: int, *, epsilon: float, use_bias: bool, context: BuildContext) -> None:
        super().__init__(width, epsilon=epsilon, use_bias=use_bias, context=context)
        self.weight = self._make(init=ones)
        self.bias = self._make(init=zeros) if use_bias else None

    def normalise(self, heads: Tensor) -> Tensor:
        """[b, n, s, d] -> [b, n, s, d]"""
        centred = heads - self._mean(heads)
        scaled = centred / self._root_mean_square(centred) * self._by_head(self.weight, heads)
        return scaled if self.bias is None else scaled + self._by_head(self.bias, heads)
