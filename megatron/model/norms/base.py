"""What the norms share: parameters that are replicated over the tensor-parallel ranks, used on hidden states that may be split.

Shapes: `s` sequence, or its local part under sequence parallelism, `b` micro-batch, `h` hidden.
"""

from __future__ import annotations

from torch import Tensor, nn

from megatron.model.spec import BuildContext
from megatron.mpu.mappings import copy_to_tensor_region
from megatron.mpu.shard import InitMethod, sharded_parameter


class Norm(nn.Module):
    """Base of the norms: [s, b, h] -> [s, b, h], each [h] normalised by itself.

    epsilon keeps the division finite; use_bias: whether to learn an offset, for norms that can have one.
    """

    def __init__(self, hidden_size: int, *, epsilon: float, use_bias: bool, context: BuildContext) -> None:
        super().__init__()
        self.epsilon = epsilon
        self._context = context

    def _build_parameter(self, size: int, init: InitMethod) -> nn.Parameter:
        return sharded_parameter((size,), init=init, **self._context.placement)

    def _shared(self, parameter: Tensor) -> Tensor:
        """The parameter as used on hidden states; where each rank has its part of the sequence, gradients are summed over the ranks."""
        if self._context.sequence_parallel:
            return copy_to_tensor_region(parameter, self._context.tensor_group)
        return parameter
