"""The transformer block: attention and MLP around a residual stream, one after the other or side by side.

Shapes: `s` sequence, or its local part under sequence parallelism, `b` micro-batch, `h` hidden.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from megatron.model.attention.base import Attention
from megatron.model.dropout import HiddenDropout
from megatron.model.mlp.base import MLP
from megatron.model.stream import Stream

Heads = tuple[Tensor, Tensor, Tensor]
"""Query [b, n, s, d], key and value [b, k, s, d]."""


class Regions(NamedTuple):
    """Functions of a class of blocks, `Block.enter` and `Block.leave` or what does the same."""

    enter: Callable[..., tuple[Heads, Tensor | None]]
    leave: Callable[..., Tensor]


class Brought(NamedTuple):
    """What a block brings to the far side of the core.

    mlp_input: what the MLP reads, where attention reads the same [s, b, h]; attention_words, mlp_words: of the masks of dropout [s, b], None
    where nothing is dropped; joint_bias: what is added to the sum of both parts [h], where their own biases are not.
    """

    mlp_input: Tensor | None
    attention_words: Tensor | None
    mlp_words: Tensor | None
    joint_bias: Tensor | None


class Block(nn.Module, ABC):
    """Base of the blocks; the names of its parts are those of the parameters in checkpoints.

    input_layernorm, post_attention_layernorm, post_feedforward_layernorm: the norms that a kind of block has, see there;
    dropout: applied to what each part adds to the residual stream.

    Around the core of attention, which sees the stream with all there is to know of its tokens, a block is two functions of tensors, `enter`
    and `leave`. compiled: these two as torch has compiled them, None = they run as they are written.
    """

    compiled: Regions | None = None

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

    def update(self, hidden: Tensor, stream: Stream) -> Tensor:
        """[s, b, h] -> [s, b, h]; the positions, the cache and the documents are those of the stream."""
        # Evaluation is the forward pass alone, now and then: it would have to compile graphs of its own.
        is_compiled = self.compiled is not None and self.training and torch.is_grad_enabled()
        enter, leave = self.compiled if self.compiled and is_compiled else Regions(type(self).enter, type(self).leave)
        attention_words = self.dropout.words(hidden, stream.dropout_keys, "attention")
        mlp_words = self.dropout.words(hidden, stream.dropout_keys, "mlp")
        heads, mlp_input = enter(self, hidden, self.attention.angles(stream))
        mixed = self.attention.mix(*heads, stream)
        del heads  # memory for what follows, where no backward pass needs them
        return leave(self, hidden, mixed, Brought(mlp_input, attention_words, mlp_words, self.joint_bias()))

    def joint_bias(self) -> Tensor | None:
        """The sum of the biases of both parts [h], where they are added together; its gradient, which both share, is one reduction.

        Not in `leave`: compiled, that would give both parameters one and the same tensor as gradient, which the next micro-batch adds to twice.
        """
        return None

    @abstractmethod
    def enter(self, hidden: Tensor, angles: Tensor | None) -> tuple[Heads, Tensor | None]:
        """[s, b, h] -> what the core of attention reads, turned by these angles, and what the MLP reads if it is known already."""

    @abstractmethod
    def leave(self, hidden: Tensor, mixed: Tensor, brought: Brought) -> Tensor:
        """[s, b, h] as it came in, what the core gave [s, b, n d], and what was brought along -> [s, b, h]."""

    def add_attention(self, hidden: Tensor, mixed: Tensor, words: Tensor | None) -> Tensor:
        """`hidden + dropout(dense(mixed))`, each [s, b, h]."""
        dense = self.attention.dense
        if self.dropout.fused_add is None:
            return self.dropout.add(hidden, dense(mixed), None, words)
        return self.dropout.add(hidden, dense.reduce(dense.partial(mixed)), dense.reduced_bias(), words)

    def add_mlp(self, hidden: Tensor, mlp_input: Tensor, words: Tensor | None) -> Tensor:
        """`hidden + dropout(mlp(mlp_input))`, each [s, b, h]."""
        if self.dropout.fused_add is None:
            return self.dropout.add(hidden, self.mlp(mlp_input), None, words)
        linear2 = self.mlp.linear2
        product = linear2.reduce(self.mlp.partial(mlp_input))
        return self.dropout.add(hidden, product, linear2.reduced_bias(), words)


class SequentialResidualBlock(Block):
    """`x = x + attention(norm(x)); x = x + mlp(norm(x))`, as in GPT-2 and Llama.

    The norms are input_layernorm and post_attention_layernorm, which stands behind attention and in front of the MLP.
    """

    def enter(self, hidden: Tensor, angles: Tensor | None) -> tuple[Heads, Tensor | None]:
        """See Block.enter."""
        assert self.input_layernorm is not None
        return self.attention.project(self.input_layernorm(hidden), angles), None

    def leave(self, hidden: Tensor, mixed: Tensor, brought: Brought) -> Tensor:
        """See Block.leave."""
        assert self.post_attention_layernorm is not None
        hidden = self.add_attention(hidden, mixed, brought.attention_words)
        return self.add_mlp(hidden, self.post_attention_layernorm(hidden), brought.mlp_words)


class ParallelResidualBlock(Block):
    """`x = x + attention(norm(x)) + mlp(norm(x))`, as in GPT-J and GPT-NeoX: one reduction over the tensor-parallel ranks, not two.

    The norms are input_layernorm, of what attention reads, and post_attention_layernorm, of what the MLP reads; without the second the
    MLP reads what attention reads (`gpt_j_tied`). While hidden dropout is active the two are reduced, biased and dropped separately, as
    their masks differ.
    """

    def enter(self, hidden: Tensor, angles: Tensor | None) -> tuple[Heads, Tensor | None]:
        """See Block.enter."""
        assert self.input_layernorm is not None
        attention_input = self.input_layernorm(hidden)
        is_shared = self.post_attention_layernorm is None
        return self.attention.project(attention_input, angles), attention_input if is_shared else None

    def leave(self, hidden: Tensor, mixed: Tensor, brought: Brought) -> Tensor:
        """See Block.leave."""
        mlp_input = brought.mlp_input
        if mlp_input is None:
            assert self.post_attention_layernorm is not None
            mlp_input = self.post_attention_layernorm(hidden)
        if self.dropout.is_active:
            hidden = self.add_attention(hidden, mixed, brought.attention_words)
            return self.add_mlp(hidden, mlp_input, brought.mlp_words)
        partial = self.attention.dense.partial(mixed) + self.mlp.partial(mlp_input)
        return self.dropout.add(hidden, self.attention.dense.reduce(partial), brought.joint_bias, None)

    def joint_bias(self) -> Tensor | None:
        """See Block.joint_bias."""
        if self.dropout.is_active:
            return None
        bias = self.attention.dense.reduced_bias()
        return self.mlp.linear2.reduced_bias() if bias is None else self.mlp.linear2.add_bias(bias)


class PostNormBlock(Block):
    """`x = x + norm(attention(x)); x = x + norm(mlp(x))`, as in OLMo-2 (`norm_position: post`).

    The norms are post_attention_layernorm, of what attention gives, and post_feedforward_layernorm, of what the MLP gives: the names
    that both have in Hugging Face's Olmo2ForCausalLM.
    """

    def enter(self, hidden: Tensor, angles: Tensor | None) -> tuple[Heads, Tensor | None]:
        """See Block.enter."""
        return self.attention.project(hidden, angles), None

    def leave(self, hidden: Tensor, mixed: Tensor, brought: Brought) -> Tensor:
        """See Block.leave."""
        assert self.post_attention_layernorm is not None
        assert self.post_feedforward_layernorm is not None
        attended = self.post_attention_layernorm(self.attention.dense(mixed))
        hidden = self.dropout.add(hidden, attended, None, brought.attention_words)
        widened = self.post_feedforward_layernorm(self.mlp(hidden))
        return self.dropout.add(hidden, widened, None, brought.mlp_words)
