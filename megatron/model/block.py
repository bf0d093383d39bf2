"""The transformer block: attention and MLP around a residual stream, one after the other or side by side.

Shapes: `s` sequence, or its local part under sequence parallelism, `b` micro-batch, `h` hidden.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from megatron.model.attention.base import Attention
from megatron.model.dropout import HiddenDropout
from megatron.model.mlp.base import MLP
from megatron.model.stream import Stream


class Block(nn.Module, ABC):
    """Base of the blocks; the names of its parts are those of the parameters in checkpoints.

    post_attention_layernorm: the norm in front of the MLP, None = the MLP reads what attention reads (`gpt_j_tied`);
    dropout: applied to what each part adds to the residual stream.
    """

    def __init__(
        self,
        *,
        input_layernorm: nn.Module,
        attention: Attention,
        post_attention_layernorm: nn.Module | None,
        mlp: MLP,
        dropout: HiddenDropout,
    ) -> None:
        super().__init__()
        self.input_layernorm = input_layernorm
        self.attention = attention
        self.post_attention_layernorm = post_attention_layernorm
        self.mlp = mlp
        self.dropout = dropout

    def forward(self, stream: Stream) -> Stream:
        """One block on."""
        return stream.with_hidden(self.update(stream.hidden, stream))

    @abstractmethod
    def update(self, hidden: Tensor, stream: Stream) -> Tensor:
        """[s, b, h] -> [s, b, h]; the positions and the cache are those of the stream."""


class SequentialResidualBlock(Block):
    """`x = x + attention(norm(x)); x = x + mlp(norm(x))`, as in GPT-2 and Llama."""

    def update(self, hidden: Tensor, stream: Stream) -> Tensor:
        """[s, b, h] -> [s, b, h]"""
        assert self.post_attention_layernorm is not None
        attended = self.attention(self.input_layernorm(hidden), stream.position_ids, stream.cache)
        hidden = hidden + self.dropout(attended)
        update: Tensor = self.dropout(self.mlp(self.post_attention_layernorm(hidden)))
        return hidden + update


class ParallelResidualBlock(Block):
    """`x = x + attention(norm(x)) + mlp(norm(x))`, as in GPT-J and GPT-NeoX: one reduction over the tensor-parallel ranks, not two.

    While hidden dropout is active the two are reduced, biased and dropped separately, as their masks differ.
    """

    def update(self, hidden: Tensor, stream: Stream) -> Tensor:
        """[s, b, h] -> [s, b, h]"""
        attention_input = self.input_layernorm(hidden)
        norm = self.post_attention_layernorm
        mlp_input = attention_input if norm is None else norm(hidden)
        places = stream.position_ids, stream.cache
        if self.dropout.is_active:
            attended: Tensor = self.dropout(self.attention(attention_input, *places))
            widened: Tensor = self.dropout(self.mlp(mlp_input))
            return hidden + attended + widened
        partial = self.attention.partial(attention_input, *places) + self.mlp.partial(mlp_input)
        return hidden + self.mlp.linear2.add_bias(self.attention.dense.finish(partial))
