"""The token embedding, of which each tensor-parallel rank holds a slice of the vocabulary.

Shapes: `b` micro-batch, `s` sequence, `h` hidden, `v` vocabulary (padded), `t` tensor-parallel size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from megatron.mpu.groups import Group
from megatron.mpu.mappings import reduce_from_tensor_region
from megatron.mpu.shard import InitMethod, sharded_parameter


class VocabParallelEmbedding(nn.Module):
    """tokens [b, s] -> [b, s, h]; the parameter `weight` is this rank's [v/t, h].

    vocab_size is the padded size v and must divide by the group's size (ValueError); rows from `valid_rows` on are padding.
    A token outside [0, v) is an error on every rank, exactly as in a plain embedding (IndexError on CPU).
    """

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int,
        *,
        group: Group,
        init: InitMethod,
        valid_rows: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.group, self.vocab_size = group, vocab_size
        self.weight = sharded_parameter(
            (vocab_size, hidden_size), init=init, group=group, dim=0, valid_rows=valid_rows, dtype=dtype, device=device
        )

    def forward(self, tokens: Tensor) -> Tensor:
        return reduce_from_tensor_region(self.partial(tokens), self.group, in_place=True)

    def partial(self, tokens: Tensor) -> Tensor:
        """The embeddings [b, s, h] of the tokens this rank holds and zeros elsewhere: the sum over the ranks is the embedding.

        For sequence parallelism: transpose to [s, b, h] and `reduce_scatter_sequence` instead of reducing everything.
        """
        if self.group.size == 1:
            return functional.embedding(tokens, self.weight)
        rows = self.weight.shape[0]
        local = tokens - self.group.rank * rows
        elsewhere = ((local < 0) | (local >= rows)) & (tokens >= 0) & (tokens < self.vocab_size)
        # A token that no rank holds keeps its index, so that the look-up refuses it instead of returning zeros.
        found = functional.embedding(local.masked_fill(elsewhere, 0), self.weight)
        return found.masked_fill(elsewhere.unsqueeze(-1), 0.0)
