"""One micro-batch as the model and the objective see it.

Shapes: `b` micro-batch, `s` sequence length.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """`tokens` predict `labels` (the same text, one position later) wherever `loss_mask` is not zero."""

    tokens: Tensor  # int64 [b, s]
    labels: Tensor  # int64 [b, s]
    loss_mask: Tensor  # float32 [b, s]
    position_ids: Tensor  # int64 [b, s]
