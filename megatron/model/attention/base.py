"""Causal self-attention but for its core: fused projection, norms of queries and keys, positions, key-value cache, output projection.

Shapes: `s` sequence (split over the ranks outside, whole inside), `S` keys so far (= `s` unless generating), `b` micro-batch,
`h` hidden, `n` local query heads, `k` local key/value heads, `d` head size, `t` tensor-parallel size. Under context parallelism `s` is
this rank's part of the sequences but in the core, where it is all of them, and `n` and `k` are a share of the heads (head_exchange.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from megatron.errors import NeoXError
from megatron.model.attention.distance_bias import DistanceBias, exact_type
from megatron.model.attention.explicit import PLAIN, Softmaxes, explicit_attention, weight_words
from megatron.model.attention.head_exchange import HeadExchange
from megatron.model.attention.head_layout import split_grouped, split_interleaved
from megatron.model.attention.mask import causal_mask
from megatron.model.cache import KeyValueCache
from megatron.model.documents import Documents
from megatron.model.dropout import needed
from megatron.model.dropout_keys import DropoutKeys
from megatron.model.positions.base import Positions
from megatron.model.spec import BuildContext
from megatron.model.stream import Stream
from megatron.mpu.linear import ColumnParallelLinear, RowParallelLinear
from megatron.mpu.shard import InitMethod


class Attention(nn.Module, ABC):
    """Attention with num_heads query heads and num_kv_heads key/value heads of head_dim channels, each rank holding its share of both.

    layer: number of the block, from 0; dropout: probability, of attention weights, which no core but the explicit one drops; use_bias, use_output_bias: in the projection of
    queries, keys and values, in that of the output; window: how many latest tokens each one sees, itself included, None = all;
    query_norm, key_norm: [b, n, s, d] -> [b, n, s, d] before rotation, or None; query_key_layer_scaling: how the `global` core guards
    its scores against overflow (see there); recompute_scores: in training, compute all that is as large as the scores again in the
    backward pass instead of keeping it (selective recomputation, Korthikanti et al. 2022, https://arxiv.org/abs/2205.05198);
    softmaxes: how the explicit core makes weights of scores; sdpa_backend: torch's kernel that `flash` trains with, whatever else it
    could take; `auto` leaves the choice to it.
    """

    def __init__(
        self,
        *,
        hidden_size: int,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        layer: int,
        positions: Positions,
        dropout: float,
        use_bias: bool,
        use_output_bias: bool,
        init: InitMethod,
        output_init: InitMethod,
        context: BuildContext,
        window: int | None = None,
        query_norm: nn.Module | None = None,
        key_norm: nn.Module | None = None,
        query_key_layer_scaling: bool = False,
        recompute_scores: bool = False,
        softmaxes: Softmaxes = PLAIN,
        sdpa_backend: str = "auto",
    ) -> None:
        super().__init__()
        group = context.tensor_group
        _check_heads(num_heads, num_kv_heads, group.size)
        self.layer = layer
        self.dropout = dropout
        self.window = window
        self.query_key_layer_scaling = query_key_layer_scaling
        self.recompute_scores = recompute_scores
        self.sdpa_backend = sdpa_backend
        self.softmaxes = softmaxes
        self._positions = positions
        self._local_heads, self._local_kv_heads = num_heads // group.size, num_kv_heads // group.size
        self._exchange = HeadExchange(
            heads=self._local_heads, kv_heads=self._local_kv_heads, group=context.context_group
        )
        self._first_head = group.rank * self._local_heads + self._exchange.first_head
        slopes = positions.slopes(num_heads)
        own = slice(self._first_head, self._first_head + self._local_heads // context.context_group.size)
        self.distance_bias = None if slopes is None else DistanceBias(slopes[own], window)
        self._split = split_interleaved if num_kv_heads == num_heads else split_grouped

        query_width, kv_width = num_heads * head_dim, num_kv_heads * head_dim
        shared: dict[str, Any] = {"sequence_parallel": context.sequence_parallel, **context.placement}
        self.query_key_value = ColumnParallelLinear(
            hidden_size,
            query_width + 2 * kv_width,
            parts=() if num_kv_heads == num_heads else (query_width, kv_width, kv_width),
            init=init,
            bias=use_bias,
            **shared,
        )
        self.dense = RowParallelLinear(query_width, hidden_size, init=output_init, bias=use_output_bias, **shared)
        self.query_layernorm, self.key_layernorm = query_norm, key_norm

    def forward(self, hidden: Tensor, stream: Stream) -> Tensor:
        """[s, b, h] -> [s, b, h], reduced over the ranks and with bias; `stream` says what there is to know of the tokens besides.

        Keys of another document are not seen, where it has documents.
        """
        output: Tensor = self.dense(self.mix(*self.project(hidden, self.angles(stream)), stream))
        return output

    def angles(self, stream: Stream) -> Tensor | None:
        """What the queries and keys of the stream's tokens are turned by, None where they are not."""
        return self._positions.angles(stream.position_ids)

    def project(self, hidden: Tensor, angles: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """[s, b, h] -> query [b, n, s, d], key and value [b, k, s, d] as the core takes them; angles: those of the stream."""
        fused = self.query_key_value(hidden)  # [s, b, (n + 2 k) d]
        query, key, value = self._split(fused, self._local_heads, self._local_kv_heads)
        if self.query_layernorm is not None and self.key_layernorm is not None:
            query, key = self.query_layernorm(query), self.key_layernorm(key)
        return *self._positions.turn(query, key, angles), value

    @abstractmethod
    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None, documents: Documents | None = None
    ) -> Tensor:
        """The core: query [b, n, s, d], key and value [b, k, S, d] -> [b, n, s, d]; query head i uses key head i // (n / k).

        allowed: bool, broadcastable to [b, n, s, S], true where a query sees a key; None = causal with s = S, and each query sees the
        `window` latest keys only, and of them those of its own document where `documents` are given. With a `distance_bias` it is the bias
        of these queries and keys, which the core adds to its scores; for None the core makes it.
        """

    @property
    def active_dropout(self) -> float:
        """The dropout probability that applies now."""
        return self.dropout if self.training else 0.0

    def attend_explicitly(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        allowed: Tensor | None,
        documents: Documents | None = None,
        words: Tensor | None = None,
    ) -> Tensor:
        """`attend` with all weights in memory, dropped by these words where they are given (see explicit.py)."""
        divisor = self.layer + 1 if self.query_key_layer_scaling else None

        def core(query: Tensor, key: Tensor, value: Tensor, words: Tensor | None) -> Tensor:
            hidden = bias = None
            if self.distance_bias is not None:
                bias = self.distance_bias.of(query, allowed, documents, exact_type(query.dtype))
            elif documents is not None:
                hidden = documents.hidden_keys(self.window)
            elif allowed is not None:
                hidden = ~allowed
            elif self.window is not None and self.window < key.shape[2]:
                hidden = ~causal_mask(query.shape[2], key.shape[2], window=self.window, device=query.device)
            options: dict[str, Any] = {"bias": bias, "divisor": divisor, "words": words, "dropout": self.dropout}
            return explicit_attention(query, key, value, hidden, softmaxes=self.softmaxes, **options)

        if not (self.recompute_scores and self.training):
            return core(query, key, value, words)
        # Masks of dropout follow from the words: there is no state of a generator to keep.
        mixed: Tensor = checkpoint(core, query, key, value, words, use_reentrant=False, preserve_rng_state=False)
        return mixed

    def mix(self, query: Tensor, key: Tensor, value: Tensor, stream: Stream) -> Tensor:
        """What `project` gave -> [s, b, n d], what the output projection reads: the core, and what there is around it."""
        allowed = None
        if stream.cache is not None:
            assert stream.documents is None, "prompts are not packed"
            key, value = stream.cache.write(self.layer, key, value)
            allowed = self._seen(stream.cache, query)
        query, key, value = self._exchange.enter(query, key, value)
        if self.active_dropout:
            words = self._weight_words(query, stream.dropout_keys)
            mixed = self.attend_explicitly(query, key, value, allowed, stream.documents, words)
        else:
            mixed = self.attend(query, key, value, allowed, stream.documents)
        return self._exchange.leave(mixed)  # [s, b, n d]

    def _seen(self, cache: KeyValueCache, query: Tensor) -> Tensor | None:
        """Which columns of the cache the new ones see, as `attend` takes it."""
        bias, columns = self.distance_bias, cache.allowed
        if columns is None:
            return None
        if bias is None:
            return self._within_window(columns)
        return cache.once(bias, lambda: bias.where(self._within_window(columns), exact_type(query.dtype)))

    def _within_window(self, allowed: Tensor) -> Tensor:
        if self.window is None or self.window >= allowed.shape[-1]:
            return allowed
        return allowed & causal_mask(*allowed.shape[-2:], window=self.window, device=allowed.device)

    def _weight_words(self, query: Tensor, keys: DropoutKeys | None) -> Tensor:
        _, heads, length, _ = query.shape
        return weight_words(needed(keys), length=length, layer=self.layer, first_head=self._first_head, heads=heads)


def _check_heads(num_heads: int, num_kv_heads: int, ranks: int) -> None:
    if num_heads % ranks or num_kv_heads % ranks or num_heads % num_kv_heads:
        raise NeoXError(
            f'"num_attention_heads" {num_heads} and "num_kv_heads" {num_kv_heads} do not fit "model_parallel_size" {ranks}: '
            "both must be multiples of it, and num_attention_heads a multiple of num_kv_heads"
        )
