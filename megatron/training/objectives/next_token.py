"""Next-token prediction: the cross entropy of every non-masked token (`train_impl: normal`)."""

from __future__ import annotations

from torch import Tensor

from megatron.data.batch import Batch
from megatron.model.loss import masked_loss_sum, projected_loss_sum
from megatron.model.projection import Projection
from megatron.mpu.groups import Group


class NextTokenObjective:
    """Minimises the mean of -log p(label) over the tokens whose `loss_mask` is not zero."""

    def __init__(self, *, group: Group, vocab_size: int) -> None:
        self._group = group
        self._vocab_size = vocab_size

    def loss_sum(self, logits: Tensor, batch: Batch) -> Tensor:
        """Summed cross entropy in nats; `logits` [b, s, v/t]."""
        return masked_loss_sum(logits, batch.labels, batch.loss_mask, self._group, self._vocab_size)

    def projected_loss_sum(self, projection: Projection, batch: Batch) -> Tensor:
        """The same without the logits."""
        return projected_loss_sum(projection, batch.labels, batch.loss_mask, self._vocab_size)

    def weight(self, batch: Batch) -> Tensor:
        """The number of tokens that count."""
        return batch.loss_mask.sum()
