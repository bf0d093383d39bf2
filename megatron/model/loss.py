"""Next-token loss of one micro-batch, from logits split over the tensor-parallel ranks or without them.

Shapes: `b` micro-batch, `s` sequence, `v` padded vocabulary, `t` tensor-parallel size.
"""

from __future__ import annotations

from torch import Tensor

from megatron.model.projection import Projection
from megatron.mpu.cross_entropy import vocab_parallel_cross_entropy
from megatron.mpu.groups import Group
from megatron.mpu.linear_cross_entropy import linear_cross_entropy


def masked_loss_sum(logits: Tensor, labels: Tensor, loss_mask: Tensor, group: Group, vocab_size: int) -> Tensor:
    """The cross entropy of logits [b, s, v/t] with labels int64 [b, s], weighted by loss_mask [b, s] and summed: a scalar in nats.

    The same on every rank of `group`; columns from vocab_size on are padding and never count.
    """
    losses = vocab_parallel_cross_entropy(logits, labels, group, vocab_size=vocab_size)  # [b, s]
    return (losses * loss_mask).sum()


def projected_loss_sum(projection: Projection, labels: Tensor, loss_mask: Tensor, vocab_size: int) -> Tensor:
    """As `masked_loss_sum` of the projection's logits, up to rounding, in a fraction of the memory; it has one backward pass only."""
    return linear_cross_entropy(
        projection.hidden,
        projection.weight,
        projection.bias,
        labels=labels.transpose(0, 1),
        weights=loss_mask.transpose(0, 1),
        group=projection.group,
        vocab_size=vocab_size,
        sequence_parallel=projection.sequence_parallel,
        kernels=projection.row_kernels,
    )
