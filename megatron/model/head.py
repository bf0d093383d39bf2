"""The last two layers: the final norm, and the projection to logits or rewards. Sequence-first turns into batch-first here.

Shapes: `s` sequence, or its local part under sequence parallelism, `b` micro-batch, `h` hidden, `v` padded vocabulary, `t` tensor-parallel size.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from megatron.model.projection import Criterion, Projection
from megatron.model.spec import BuildContext
from megatron.model.stream import Stream
from megatron.mpu.embedding import VocabParallelEmbedding
from megatron.mpu.linear import ColumnParallelLinear
from megatron.mpu.linear_cross_entropy_rows import RowKernels
from megatron.mpu.mappings import copy_to_tensor_region, gather_replicated_sequence, gather_sequence
from megatron.mpu.packed import Product, can_pack, packed_product
from megatron.mpu.shard import InitMethod, sharded_parameter


class FinalNorm(nn.Module):
    """The norm behind the last block."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, stream: Stream) -> Stream:
        """The stream, normalised."""
        return stream.with_hidden(self.norm(stream.hidden))


class Head(nn.Module):
    """Logits by a matrix of its own. vocab_size: its rows including padding; valid_rows: rows without it; use_bias: add a number to the
    logits of each entry; row_kernels: see `Projection`."""

    def __init__(
        self,
        *,
        vocab_size: int,
        valid_rows: int,
        hidden_size: int,
        use_bias: bool = False,
        init: InitMethod,
        context: BuildContext,
        row_kernels: RowKernels | None = None,
    ) -> None:
        super().__init__()
        self.final_linear = ColumnParallelLinear(
            hidden_size,
            vocab_size,
            bias=use_bias,
            init=init,
            valid_rows=valid_rows,
            sequence_parallel=context.sequence_parallel,
            **context.placement,
        )
        self._context, self._row_kernels = context, row_kernels

    def forward(self, stream: Stream, criterion: Criterion | None = None) -> Tensor:
        """The stream [s, b, h] -> logits [b, s, v/t] of the whole sequence and this rank's part of the vocabulary.

        With a criterion: what it returns for the projection.
        """
        linear = self.final_linear
        if criterion is not None:
            return criterion(_projection(stream, linear.weight, linear.bias, self._context, self._row_kernels))
        logits: Tensor = linear(stream.hidden)
        return logits.transpose(0, 1)


class TiedHead(nn.Module):
    """Logits by the token embeddings: `word_embeddings.weight` is the first layer's, or a copy of it on another pipeline stage."""

    def __init__(
        self,
        *,
        vocab_size: int,
        valid_rows: int,
        hidden_size: int,
        init: InitMethod,
        context: BuildContext,
        row_kernels: RowKernels | None = None,
    ) -> None:
        super().__init__()
        self.word_embeddings = VocabParallelEmbedding(
            vocab_size, hidden_size, init=init, valid_rows=valid_rows, **context.placement
        )
        self._context, self._row_kernels = context, row_kernels
        self._packed: Product | None = None

    def pack(self) -> None:
        """As of a linear layer; `word_embeddings.weight` stays as well, since the first layer looks rows up in it."""
        weight = self.word_embeddings.weight
        self._packed = packed_product(weight) if can_pack(weight) else None

    def forward(self, stream: Stream, criterion: Criterion | None = None) -> Tensor:
        """The stream [s, b, h] -> logits [b, s, v/t] of the whole sequence and this rank's part of the vocabulary.

        With a criterion: what it returns for the projection.
        """
        if criterion is not None:
            weight = self.word_embeddings.weight
            return criterion(_projection(stream, weight, None, self._context, self._row_kernels))
        enter = gather_sequence if self._context.sequence_parallel else copy_to_tensor_region
        hidden = enter(stream.hidden, self._context.tensor_group)
        packed, weight = self._packed, self.word_embeddings.weight
        return (F.linear(hidden, weight) if packed is None else packed(hidden, None)).transpose(0, 1)


def _projection(
    stream: Stream, weight: Tensor, bias: Tensor | None, context: BuildContext, row_kernels: RowKernels | None
) -> Projection:
    assert weight.numel(), "a packed matrix is for models that are not trained"
    return Projection(stream.hidden, weight, bias, context.tensor_group, context.sequence_parallel, row_kernels)


class RewardHead(nn.Module):
    """One number for each token instead of logits (`train_impl: rm`), by a matrix [1, h] that every tensor-parallel rank has whole.

    Existing GPT-NeoX cuts it along `h`; whole it is the same tensor, under the same name.
    """

    def __init__(self, hidden_size: int, *, init: InitMethod, context: BuildContext) -> None:
        super().__init__()
        self.rm_linear = _WholeLinear(hidden_size, 1, init=init, context=context)
        self._context = context

    def forward(self, stream: Stream) -> Tensor:
        """The stream [s, b, h] -> rewards [b, s] of the whole sequence, the same on every rank."""
        rewards: Tensor = self.rm_linear(stream.hidden)
        if self._context.sequence_parallel:
            rewards = gather_replicated_sequence(rewards, self._context.tensor_group)
        return rewards.squeeze(-1).transpose(0, 1)


class _WholeLinear(nn.Module):
    """y = x weight^T with a weight that every rank has whole: [s, b, in] -> [s, b, out]."""

    def __init__(self, in_features: int, out_features: int, *, init: InitMethod, context: BuildContext) -> None:
        super().__init__()
        self.weight = sharded_parameter((out_features, in_features), init=init, **context.placement)
        self._context = context

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor = self.weight
        if self._context.sequence_parallel:  # each rank sees its part of the sequence: the gradient is their sum
            weight = copy_to_tensor_region(weight, self._context.tensor_group)
        return F.linear(x, weight)
