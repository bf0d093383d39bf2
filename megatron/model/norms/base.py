"""What the norms share: parameters that are replicated over the tensor-parallel ranks, used on activations that may be split.

Shapes: `s` sequence, or its local part under sequence parallelism, `b` micro-batch, `h` hidden (the channels of a head, where queries
and keys are normalised by [b, n, s, d]: what stands before the last dimension does not matter).
"""

from __future__ import annotations

from torch import Tensor, nn

from megatron.model.spec import BuildContext
from megatron.mpu.mappings import copy_to_tensor_region
from megatron.mpu.shard import InitMethod, sharded_parameter


class Norm(nn.Module):
    """Base of the norms: [s, b, h] -> [s, b, h], each [h] normalised by itself.

    epsilon keeps the division finite; use_bias: whether to learn an offset, for norms that can have one; is_split: whether each
    tensor-parallel rank normalises other vectors than its peers, None = under sequence parallelism; fused: whether to use a kernel, of
    the norms for which there is one, where it can run.
    """

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
        super().__init__()
        self.epsilon = epsilon
        self._context = context
        self._is_split = context.sequence_parallel if is_split is None else is_split

    def _build_parameter(self, size: int, init: InitMethod) -> nn.Parameter:
        return sharded_parameter((size,), init=init, **self._context.placement)

    def _shared(self, parameter: Tensor) -> Tensor:
        """The parameter as it is used: where each rank normalises vectors of its own, its gradient is summed over the ranks."""
        if self._is_split:
            return copy_to_tensor_region(parameter, self._context.tensor_group)
        return parameter
