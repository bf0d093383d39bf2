"""Learned positions: one vector a position, added to the token embeddings.

Shapes: `s` sequence, or its local part under sequence parallelism, `b` micro-batch, `h` hidden.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from megatron.model.positions.base import Positions
from megatron.model.spec import BuildContext
from megatron.mpu.mappings import copy_to_tensor_region
from megatron.mpu.shard import InitMethod, sharded_parameter


class LearnedPositions(Positions):
    """The scheme of GPT-2; with `offset` rows in front, that of OPT."""

    def build_embedding(self, hidden_size: int, *, init: InitMethod, context: BuildContext) -> nn.Module:
        """The table of position vectors."""
        rows = self.max_positions + self.offset
        return LearnedPositionEmbedding(rows, hidden_size, offset=self.offset, init=init, context=context)


class LearnedPositionEmbedding(nn.Module):
    """A table [rows, h], whole on every tensor-parallel rank; position p is row p + offset."""

    def __init__(self, rows: int, hidden_size: int, *, offset: int, init: InitMethod, context: BuildContext) -> None:
        super().__init__()
        self.offset = offset
        self.weight = sharded_parameter((rows, hidden_size), init=init, **context.placement)
        self._context = context

    def forward(self, position_ids: Tensor) -> Tensor:
        """[b, s] -> [s, b, h], under sequence parallelism this rank's part of the sequence."""
        rows = position_ids.transpose(0, 1) + self.offset  # [s, b]
        if not self._context.sequence_parallel:
            return F.embedding(rows, self.weight)
        group = self._context.tensor_group
        local_rows = rows.chunk(group.size)[group.rank]
        return F.embedding(local_rows, copy_to_tensor_region(self.weight, group))
