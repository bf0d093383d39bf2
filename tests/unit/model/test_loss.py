"""The loss of a micro-batch is the masked sum of token losses, and padding columns never count."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from megatron.model.loss import masked_loss_sum
from megatron.mpu.groups import SINGLE

LOGITS = torch.randn(2, 5, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(9, (2, 5), generator=torch.Generator().manual_seed(1))
MASK = torch.tensor([[1.0, 0, 1, 0.5, 1], [0, 0, 1, 1, 1]])


def test_loss_is_the_masked_sum_of_cross_entropies() -> None:
    losses = F.cross_entropy(LOGITS.flatten(0, 1), LABELS.flatten(), reduction="none").view(2, 5)
    torch.testing.assert_close(masked_loss_sum(LOGITS, LABELS, MASK, SINGLE, 12), (losses * MASK).sum())


def test_padding_columns_do_not_count() -> None:
    expected = masked_loss_sum(LOGITS[..., :9], LABELS, MASK, SINGLE, 9)
    torch.testing.assert_close(masked_loss_sum(LOGITS, LABELS, MASK, SINGLE, 9), expected)
