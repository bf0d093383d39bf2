"""What plain and gated MLPs share: a widening and a narrowing projection, split over the tensor-parallel ranks.

Shapes: `s` sequence, or its local part under sequence parallelism, `b` micro-batch, `h` hidden, `w` MLP width, `t` tensor-parallel size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

from megatron.model.activations import Activation
from megatron.model.spec import BuildContext
from megatron.mpu.linear import ColumnParallelLinear, RowParallelLinear
from megatron.mpu.shard import InitMethod


class MLP(nn.Module, ABC):
    """`linear2(widened)`, where `linear1` makes `branches` matrices of width `w` each, fused; each rank holds its part of every one.

    width: `w`, the input width of linear2; use_bias: in both projections.
    """

    branches: ClassVar[int] = 1

    def __init__(
        self,
        *,
        hidden_size: int,
        width: int,
        activation: Activation,
        use_bias: bool,
        init: InitMethod,
        output_init: InitMethod,
        context: BuildContext,
    ) -> None:
        super().__init__()
        self.activation = activation
        shared: dict[str, Any] = {"bias": use_bias, "sequence_parallel": context.sequence_parallel, **context.placement}
        parts = (width,) * self.branches if self.branches > 1 else ()
        self.linear1 = ColumnParallelLinear(hidden_size, self.branches * width, parts=parts, init=init, **shared)
        self.linear2 = RowParallelLinear(width, hidden_size, init=output_init, **shared)

    def forward(self, hidden: Tensor) -> Tensor:
        """[s, b, h] -> [s, b, h], reduced over the ranks and with bias."""
        output: Tensor = self.linear2(self.widen(hidden))
        return output

    def partial(self, hidden: Tensor) -> Tensor:
        """This rank's summand of the output [s, b, h], before reduction and bias (the sequence is whole here)."""
        return self.linear2.partial(self.widen(hidden))

    @abstractmethod
    def widen(self, hidden: Tensor) -> Tensor:
        """[s, b, h] -> [s, b, w/t], what `linear2` narrows (the sequence is whole here)."""
