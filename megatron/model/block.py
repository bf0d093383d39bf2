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

    input_layernorm, post_attention_layernorm, post_feedforward_layernorm: the norms that a kind of block has, see there;
    dropout: applied to what each part adds to the residual stream.
    """

    def __init__(
        self,
        *,
        attention: Attention,
        mlp: MLP,
        dropout: HiddenDropout,
        input_layernorm: nn.Module | None = None,
        post_attention_layernorm: nn.Module | None = None,
        post_feedforward_layernorm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.input_layernorm = input_layernorm
        self.attention = attention
        self.post_attention_layernorm = post_attention_layernorm
        self.mlp = mlp
        self.post_feedforward_layernorm = post_feedforward_layernorm
        self.dropout = dropout

    def forward(self, stream: Stream) -> Stream:
        """One block on."""
        return stream.with_hidden(self.update(stream.hidden, stream))

    @abstractmethod
    def update(self, hidden: Tensor, stream: Stream) -> Tensor:
        """[s, b, h] -> [s, b, h]; the positions, the cache and the documents are those of the stream."""


class SequentialResidualBlock(Block):
    """`x = x + attention(norm(x)); x = x + mlp(norm(x))`, as in GPT-2 and Llama.

    The norms are input_layernorm and post_attention_layernorm, which stands behind attention and in front of the MLP.
    """

    def update(self, hidden: Tensor, stream: Stream) -> Tensor:
        """[s, b, h] -> [s, b, h]"""
        assert self.input_layernorm is not None
        assert self.post_attention_layernorm is not None
        attended = self.attention(self.input_layernorm(hidden), stream)
        hidden = hidden + self.dropout(attended, stream.dropout_keys, "attention")
        widened = self.mlp(self.post_attention_layernorm(hidden))
        update: Tensor = self.dropout(widened, stream.dropout_keys, "mlp")
        return hidden + update


class ParallelResidualBlock(Block):
    """`x = x + attention(norm(x)) + mlp(norm(x))`, as in GPT-J and GPT-NeoX: one reduction over the tensor-parallel ranks, not two.

    The norms are input_layernorm, of what attention reads, and post_attention_layernorm, of what the MLP reads; without the second the
    MLP reads what attention reads (`gpt_j_tied`). While hidden dropout is active the two are reduced, biased and dropped separately, as
    their masks differ.
    """

    def update(self, hidden: Tensor, stream: Stream) -> Tensor:
        """[s, b, h] -> [s, b, h]"""
        assert self.input_layernorm is not None
        attention_input = self.input_layernorm(hidden)
        norm = self.post_attention_layernorm
        mlp_input = attention_input if norm is None else norm(hidden)
        if self.dropout.is_active:
            keys = stream.dropout_keys
            attended: Tensor = self.dropout(self.attention(attention_input, stream), keys, "attention")
            widened: Tensor = self.dropout(self.mlp(mlp_input), keys, "mlp")
            return hidden + attended + widened
        partial = self.attention.partial(attention_input, stream) + self.mlp.partial(mlp_input)
        return hidden + self.mlp.linear2.add_bias(self.attention.dense.finish(partial))


class PostNormBlock(Block):
    """`x = x + norm(attention(x)); x = x + norm(mlp(x))`, as in OLMo-2 (`norm_position: post`).

    The norms are post_attention_layernorm, of what attention gives, and post_feedforward_layernorm, of what the MLP gives: the names
    that both have in Hugging Face's Olmo2ForCausalLM.
    """

    def update(self, hidden: Tensor, stream: Stream) -> Tensor:
        """[s, b, h] -> [s, b, h]"""
        assert self.post_attention_layernorm is not None
        assert self.post_feedforward_layernorm is not None
        attended = self.post_attention_layernorm(self.attention(hidden, stream))
        hidden = hidden + self.dropout(attended, stream.dropout_keys, "attention")
        widened = self.post_feedforward_layernorm(self.mlp(hidden))
        update: Tensor = self.dropout(widened, stream.dropout_keys, "mlp")
        return hidden + update
