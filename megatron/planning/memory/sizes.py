"""The sizes of one rank's tensors under a layout, and what a number takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from megatron.neox_arguments.arguments import NeoXArgs
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
    """The sizes of one rank's tensors."""

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

    @classmethod
    def of(cls, args: NeoXArgs, layout: Layout, device: Device) -> Sizes:
        """The sizes under a layout."""
        # Where answers are compared, a sample is two sequences; not built yet.
        sequences = layout.micro_batch * (2 if args.train_impl in ("dpo", "rm") else 1)
        tokens = sequences * args.seq_length
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
    def scores(self) -> int:
        """Attention scores of a micro-batch: one for each head, query and key."""
        return self.micro_batch * self.heads * self.sequence**2

    @property
    def is_half(self) -> bool:
        """Whether the model is in half precision."""
        return self.number < WIDE
