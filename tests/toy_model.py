"""A tiny language model as layer specs, for tests of what runs specs: every kind of parameter the framework knows, and nothing else.

Vocabulary-parallel embedding with padded rows, blocks of a column-parallel layer with two fused parts and a row-parallel one with a
bias, norm weights, a tied or an own head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from megatron.data.batch import Batch
from megatron.model.spec import BuildContext, LayerSpec
from megatron.model.stream import Stream
from megatron.mpu.cross_entropy import vocab_parallel_cross_entropy
from megatron.mpu.embedding import VocabParallelEmbedding
from megatron.mpu.groups import Group
from megatron.mpu.linear import ColumnParallelLinear, RowParallelLinear
from megatron.mpu.mappings import copy_to_tensor_region
from megatron.mpu.shard import sharded_parameter

VOCABULARY, PADDED, HIDDEN, BLOCKS, SEQUENCE = 59, 64, 16, 4, 8

# The least a configuration must say, with the sizes of the toy model.
TOY_CONFIG = {
    "num_layers": BLOCKS,
    "hidden_size": HIDDEN,
    "num_attention_heads": 2,
    "seq_length": SEQUENCE,
    "max_position_embeddings": SEQUENCE,
    "train_micro_batch_size_per_gpu": 1,
    "train_iters": 20,
}


def init_normal(tensor: Tensor, generator: torch.Generator) -> None:
    """Normal with the standard deviation 0.3: large enough for gradients that matter."""
    tensor.normal_(0.0, 0.3, generator=generator)


def init_ones(tensor: Tensor, generator: torch.Generator) -> None:
    """Ones."""
    tensor.fill_(1.0)


class ToyEmbedding(nn.Module):
    """tokens [b, s] -> stream of [s, b, h]."""

    def __init__(self, context: BuildContext) -> None:
        super().__init__()
        self.word_embeddings = VocabParallelEmbedding(
            PADDED, HIDDEN, init=init_normal, valid_rows=VOCABULARY, **context.placement
        )

    def forward(self, tokens: Tensor, position_ids: Tensor, cache: None = None, dropout_keys: None = None) -> Stream:
        return Stream(self.word_embeddings(tokens).transpose(0, 1).contiguous(), position_ids)


class ToyBlock(nn.Module):
    """x + row(a * sigmoid(b)), with (a, b) two parts of one column-parallel product of the normalised x."""

    def __init__(self, context: BuildContext) -> None:
        super().__init__()
        width = 2 * HIDDEN
        self.scale = sharded_parameter((HIDDEN,), init=init_ones, **context.placement)
        self.up = ColumnParallelLinear(HIDDEN, 2 * width, init=init_normal, parts=(width, width), **context.placement)
        self.down = RowParallelLinear(width, HIDDEN, init=init_normal, **context.placement)

    def forward(self, stream: Stream) -> Stream:
        x = F.layer_norm(stream.hidden, (HIDDEN,)) * self.scale
        a, b = self.up(x).chunk(2, dim=-1)
        return stream.with_hidden(stream.hidden + self.down(a * torch.sigmoid(b)))


class ToyNorm(nn.Module):
    """Layer norm with a weight."""

    def __init__(self, context: BuildContext) -> None:
        super().__init__()
        self.scale = sharded_parameter((HIDDEN,), init=init_ones, **context.placement)

    def forward(self, stream: Stream) -> Stream:
        return stream.with_hidden(F.layer_norm(stream.hidden, (HIDDEN,)) * self.scale)


class ToyHead(nn.Module):
    """Logits [b, s, v/t] by a vocabulary-parallel matrix, which may be the embedding's."""

    def __init__(self, context: BuildContext) -> None:
        super().__init__()
        self.group = context.tensor_group
        self.word_embeddings = VocabParallelEmbedding(
            PADDED, HIDDEN, init=init_normal, valid_rows=VOCABULARY, **context.placement
        )

    def forward(self, stream: Stream) -> Tensor:
        hidden = copy_to_tensor_region(stream.hidden, self.group)
        return F.linear(hidden, self.word_embeddings.weight).transpose(0, 1)


def toy_specs(*, tied: bool) -> list[LayerSpec]:
    """Embedding 0, blocks from 2 on, norm, head, numbered as in a GPT."""
    weight = "word_embeddings.weight"
    return [
        LayerSpec(0, "embedding", ToyEmbedding, tied_parameter=weight if tied else ""),
        *(LayerSpec(2 + index, "transformer", ToyBlock) for index in range(BLOCKS)),
        LayerSpec(BLOCKS + 3, "norm", ToyNorm),
        LayerSpec(BLOCKS + 4, "head", ToyHead, tied_to=0 if tied else None, tied_parameter=weight if tied else ""),
    ]


class ToyObjective:
    """Cross entropy of the next token."""

    def __init__(self, group: Group) -> None:
        self.group = group

    def loss_sum(self, logits: Tensor, batch: Batch) -> Tensor:
        losses = vocab_parallel_cross_entropy(logits, batch.labels, self.group, vocab_size=VOCABULARY)
        return (losses * batch.loss_mask).sum()

    def weight(self, batch: Batch) -> Tensor:
        return batch.loss_mask.sum()


def global_batch(step: int, rows: int) -> Batch:
    """The samples of a step: a function of the step alone. Rows differ a lot in how many of their tokens count."""
    generator = torch.Generator().manual_seed(1000 + step)
    text = torch.randint(0, VOCABULARY, (rows, SEQUENCE + 1), generator=generator)
    kept = torch.rand(rows, SEQUENCE, generator=generator) < torch.linspace(0.1, 1.0, rows).unsqueeze(1)
    positions = torch.arange(SEQUENCE).expand(rows, -1).contiguous()
    return Batch(text[:, :-1].contiguous(), text[:, 1:].contiguous(), kept.float(), positions)


def rows_of(batch: Batch, begin: int, end: int) -> Batch:
    """The samples [begin, end) of a batch."""
    return Batch(**{name: value[begin:end] for name, value in vars(batch).items() if value is not None})


def micro_batches(batch: Batch, *, count: int, rank: int, ranks: int) -> list[Batch]:
    """This data-parallel rank's share of a global batch, in `count` micro-batches."""
    size = batch.tokens.shape[0] // (count * ranks)
    begin = rank * count * size
    return [rows_of(batch, begin + index * size, begin + (index + 1) * size) for index in range(count)]
