"""The sizes of one rank's tensors under a layout, and what a number takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from megatron.neox_arguments.arguments import NeoXArgs
from megatron.neox_arguments.derive import derive_key_head_copies
from megatron.planning.layout import Layout

Device = Literal["cuda", "cpu"]
NUMBER_BYTES = {"fp32": 4, "fp16": 2, "bfloat16": 2}
"""A number in the model's precision."""
WIDE = 4
"""A number that is computed in fp32 whatever the model's precision."""
INTEGER = 8
"""A token or a position."""


@dataclass(frozen=True)
class Sizes:
    """The sizes of one rank's tensors. sequence: whole, while `tokens` are those of a context rank; heads, kv_heads: of a tensor rank."""

    number: int
    micro_batch: int
    sequence: int
    tokens: int
    stream_tokens: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_width: int
    tensor: int
    device: Device
    context: int = 1

    @classmethod
    def of(cls, args: NeoXArgs, layout: Layout, device: Device) -> Sizes:
        """The sizes under a layout."""
        # Where answers are compared, a sample is two sequences; not built yet.
        sequences = layout.micro_batch * (2 if args.train_impl in ("dpo", "rm") else 1)
        tokens = sequences * args.seq_length // layout.context
        return cls(
            number=NUMBER_BYTES[args.precision],
            micro_batch=sequences,
            sequence=args.seq_length,
            tokens=tokens,
            stream_tokens=tokens // layout.tensor if layout.sequence_parallel else tokens,
            hidden=args.hidden_size,
            heads=args.num_attention_heads // layout.tensor,
            kv_heads=args.num_kv_heads // layout.tensor,
            head_dim=args.head_dim,
            mlp_width=args.mlp_width // layout.tensor,
            tensor=layout.tensor,
            device=device,
            context=layout.context,
        )

    @property
    def stream(self) -> int:
        """The hidden states of a micro-batch between layers, `e T' h`."""
        return self.number * self.stream_tokens * self.hidden

    @property
    def query(self) -> int:
        """The queries of a micro-batch, `e T q`."""
        return self.number * self.tokens * self.heads * self.head_dim

    @property
    def key(self) -> int:
        """The keys of a micro-batch, `e T k`."""
        return self.number * self.tokens * self.kv_heads * self.head_dim

    @property
    def traded(self) -> int:
        """Queries, keys and values of a micro-batch as context ranks have traded them: of whole sequences, of a share of the heads."""
        return self.query + 2 * self.key * self._copies

    @property
    def scores(self) -> int:
        """Attention scores of a micro-batch: one for each head of this rank, query and key of whole sequences."""
        return self.micro_batch * self.heads // self.context * self.sequence**2

    @property
    def is_grouped(self) -> bool:
        """Whether attention's core has fewer key/value heads than query heads."""
        return self.heads != self.kv_heads * self._copies

    @property
    def _copies(self) -> int:
        return derive_key_head_copies(self.heads, self.kv_heads, ranks=self.context)

    @property
    def is_half(self) -> bool:
        """Whether the model is in half precision."""
        return self.number < WIDE
