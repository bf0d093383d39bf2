"""What a model asks of any layout: the numbers of a configuration that decide how long a step takes."""

from __future__ import annotations

from dataclasses import dataclass

from megatron.neox_arguments.arguments import NeoXArgs
from megatron.planning.memory.sizes import NUMBER_BYTES
from megatron.planning.model.flops import (
    forward_flops_per_token_of_blocks,
    head_flops_per_token,
    repeated_flops_per_token,
)
from megatron.planning.model.parameters import count_parameters


@dataclass(frozen=True)
class Work:
    """What a model asks of any layout. FLOPs are those of a forward pass per token; number_bytes: of a weight or activation; repeated: the
    share of the blocks' FLOPs that recomputation, where it is on, adds."""

    blocks: int
    block_flops: float
    head_flops: float
    parameters: int
    hidden_size: int
    seq_length: int
    number_bytes: int
    reductions: int
    overlaps: bool
    heads: int
    kv_heads: int
    head_dim: int
    repeated: float = 1.0

    @property
    def repeats_blocks(self) -> bool:
        """Whether recomputation repeats whole blocks, with what they exchange."""
        return self.repeated == 1.0

    @classmethod
    def of(cls, args: NeoXArgs, *, vocab_size: int) -> Work:
        """The work of a configuration's model. reductions: over tensor ranks in a block's forward pass."""
        reduces_once = args.gpt_j_residual and args.hidden_dropout == 0
        return cls(
            blocks=args.num_layers,
            block_flops=forward_flops_per_token_of_blocks(args) / args.num_layers,
            head_flops=head_flops_per_token(args, vocab_size=vocab_size),
            parameters=count_parameters(args, vocab_size=vocab_size),
            hidden_size=args.hidden_size,
            seq_length=args.seq_length,
            number_bytes=NUMBER_BYTES[args.precision],
            reductions=1 if reduces_once else 2,
            overlaps=bool(args.zero_optimization.get("overlap_comm")),
            heads=args.num_attention_heads,
            kv_heads=args.num_kv_heads,
            head_dim=args.head_dim,
            repeated=repeated_flops_per_token(args) / forward_flops_per_token_of_blocks(args),
        )
