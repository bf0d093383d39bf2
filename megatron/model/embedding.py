"""The first layer: tokens and positions become hidden states. Batch-first turns into sequence-first here.

Shapes: `b` micro-batch, `s` sequence, `h` hidden; hidden states leave as [s, b, h], under sequence parallelism as this rank's part of it.
"""

from __future__ import annotations

from torch import Tensor, nn

from megatron.model.cache import KeyValueCache
from megatron.model.dropout import HiddenDropout
from megatron.model.dropout_keys import DropoutKeys
from megatron.model.positions.base import Positions
from megatron.model.spec import BuildContext
from megatron.model.stream import Stream
from megatron.mpu.embedding import VocabParallelEmbedding
from megatron.mpu.mappings import reduce_scatter_sequence
from megatron.mpu.shard import InitMethod


class Embedding(nn.Module):
    """Token embeddings, split over the tensor-parallel ranks by vocabulary, plus whatever the position scheme adds, then dropout.

    vocab_size: rows including padding; valid_rows: rows without it.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        valid_rows: int,
        hidden_size: int,
        positions: Positions,
        dropout: float,
        init: InitMethod,
        context: BuildContext,
    ) -> None:
        super().__init__()
        self.word_embeddings = VocabParallelEmbedding(
            vocab_size, hidden_size, init=init, valid_rows=valid_rows, **context.placement
        )
        self.position_embeddings = positions.build_embedding(hidden_size, init=init, context=context)
        self.dropout = HiddenDropout(probability=dropout, layer="embedding", context=context)
        self._context = context

    def forward(
        self,
        tokens: Tensor,
        position_ids: Tensor,
        cache: KeyValueCache | None = None,
        dropout_keys: DropoutKeys | None = None,
    ) -> Stream:
        """tokens and position_ids int64 [b, s] -> a stream of hidden states [s, b, h]."""
        hidden = self._embed_tokens(tokens)
        if self.position_embeddings is not None:
            hidden = hidden + self.position_embeddings(position_ids)
        hidden = self.dropout(hidden, dropout_keys, "embedded")
        return Stream(hidden, position_ids, cache, dropout_keys=dropout_keys)

    def _embed_tokens(self, tokens: Tensor) -> Tensor:
        by_sequence = tokens.transpose(0, 1)  # [s, b]
        if not self._context.sequence_parallel:
            hidden: Tensor = self.word_embeddings(by_sequence)
            return hidden
        return reduce_scatter_sequence(self.word_embeddings.partial(by_sequence), self._context.tensor_group)
