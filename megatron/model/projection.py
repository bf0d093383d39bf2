"""What a head would compute logits of: hidden states, and the matrix that they are multiplied by.

A head that is given a criterion hands it this in place of logits, which a loss that takes them in pieces never has as a whole.

Shapes: `s` sequence, `b` micro-batch, `h` hidden, `v` padded vocabulary, `t` tensor-parallel size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from megatron.mpu.groups import Group
from megatron.mpu.linear_cross_entropy_rows import RowKernels


@dataclass(frozen=True)
class Projection:
    """Logits are hidden weight^T + bias, [s, b, v/t].

    hidden: [s, b, h], the same on every rank of `group`, or [s/t, b, h] under sequence parallelism; weight: [v/t, h]; bias: [v/t].
    row_kernels: what computes losses from logits on this device, None = plain torch.
    The matrix can be read while the criterion is called only, where the engine has it in pieces (ZeRO 3).
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    group: Group
    sequence_parallel: bool
    row_kernels: RowKernels | None = None


Criterion = Callable[[Projection], Tensor]
"""What takes it: a loss, as a scalar."""
