"""The last two layers: the final norm, and the projection to logits. Sequence-first turns into batch-first here.

Shapes: `s` sequence, or its local part under sequence parallelism, `b` micro-batch, `h` hidden, `v` padded vocabulary, `t` tensor-parallel size.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from megatron.model.spec import BuildContext
from megatron.model.stream import Stream
from megatron.mpu.embedding import VocabParallelEmbedding
from megatron.mpu.linear import ColumnParallelLinear
from megatron.mpu.mappings import copy_to_tensor_region, gather_sequence
from megatron.mpu.shard import InitMethod


class FinalNorm(nn.Module):
    """The norm behind the last block."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, stream: Stream) -> Stream:
        """The stream, normalised."""
        return stream.with_hidden(self.norm(stream.hidden))


class Head(nn.Module):
    """Logits by a matrix of its own. vocab_size: its rows including padding; valid_rows: rows without it."""

    def __init__(
        self, *, vocab_size: int, valid_rows: int, hidden_size: int, init: InitMethod, context: BuildContext
    ) -> None:
        super().__init__()
        self.final_linear = ColumnParallelLinear(
            hidden_size,
            vocab_size,
            bias=False,
            init=init,
            valid_rows=valid_rows,
            sequence_parallel=context.sequence_parallel,
            **context.placement,
        )

    def forward(self, stream: Stream) -> Tensor:
        """The stream [s, b, h] -> logits [b, s, v/t] of the whole sequence and this rank's part of the vocabulary."""
        logits: Tensor = self.final_linear(stream.hidden)
        return logits.transpose(0, 1)


class TiedHead(nn.Module):
    """Logits by the token embeddings: `word_embeddings.weight` is the first layer's, or a copy of it on another pipeline stage."""

    def __init__(
        self, *, vocab_size: int, valid_rows: int, hidden_size: int, init: InitMethod, context: BuildContext
    ) -> None:
        super().__init__()
        self.word_embeddings = VocabParallelEmbedding(
            vocab_size, hidden_size, init=init, valid_rows=valid_rows, **context.placement
        )
        self._context = context

    def forward(self, stream: Stream) -> Tensor:
        """The stream [s, b, h] -> logits [b, s, v/t] of the whole sequence and this rank's part of the vocabulary."""
        enter = gather_sequence if self._context.sequence_parallel else copy_to_tensor_region
        hidden = enter(stream.hidden, self._context.tensor_group)
        return F.linear(hidden, self.word_embeddings.weight).transpose(0, 1)
