"""Floating-point operations of a GPT, from its arguments alone.

Counted as in PaLM (Chowdhery et al. 2022, appendix B): 2 operations a multiply-add, matrix products only, attention scores over the full
sequence (not halved for the causal mask), the backward pass twice the forward pass. *Model* FLOPs count that and give MFU;
*hardware* FLOPs add the forward passes that activation checkpointing repeats, and give HFU.
"""

from __future__ import annotations

from megatron.neox_arguments.arguments import NeoXArgs

BACKWARD_PER_FORWARD = 2


def forward_flops_per_token_of_block(args: NeoXArgs) -> int:
    """One transformer block's forward pass, per token of a sequence of `seq_length`."""
    hidden, head_dim = args.hidden_size, args.head_dim
    query_width, key_value_width = args.num_attention_heads * head_dim, args.num_kv_heads * head_dim
    projections = 2 * hidden * (query_width + 2 * key_value_width) + 2 * query_width * hidden
    scores_and_values = 2 * 2 * args.seq_length * query_width
    matrices = 3 if args.gated_activation else 2
    return projections + scores_and_values + 2 * matrices * hidden * args.mlp_width


def model_flops_per_token(args: NeoXArgs, *, vocab_size: int) -> int:
    """Forward and backward pass of the whole model, per token."""
    forward = args.num_layers * forward_flops_per_token_of_block(args) + 2 * args.hidden_size * vocab_size
    return forward * (1 + BACKWARD_PER_FORWARD)


def hardware_flops_per_token(args: NeoXArgs, *, vocab_size: int) -> int:
    """As `model_flops_per_token`, plus the blocks' second forward pass under activation checkpointing."""
    repeated = args.num_layers * forward_flops_per_token_of_block(args) if args.checkpoint_activations else 0
    return model_flops_per_token(args, vocab_size=vocab_size) + repeated
