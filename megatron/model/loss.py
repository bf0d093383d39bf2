"""Next-token loss of one micro-batch from logits split over the tensor-parallel ranks.

Shapes: `b` micro-batch, `s` sequence, `v` padded vocabulary, `t` tensor-parallel size.
"""

from __future__ import annotations

from torch import Tensor

from megatron.mpu.cross_entropy import vocab_parallel_cross_entropy
from megatron.mpu.groups import Group


def masked_loss_sum(logits: Tensor, labels: Tensor, loss_mask: Tensor, group: Group, vocab_size: int) -> Tensor:
    """The cross entropy of logits [b, s, v/t] with labels int64 [b, s], weighted by loss_mask [b, s] and summed: a scalar in nats.

    The same on every rank of `group`; columns from vocab_size on are padding and never count.
    """
    losses = vocab_parallel_cross_entropy(logits, labels, group, vocab_size=vocab_size)  # [b, s]
    return (losses * loss_mask).sum()
