"""A small architecture, with every default of a family."""

from __future__ import annotations

from megatron.conversion.mapping.architecture import Architecture

SMALL = Architecture(
    num_layers=2,
    hidden_size=32,
    num_attention_heads=4,
    num_kv_heads=2,
    head_dim=8,
    mlp_width=48,
    vocab_size=59,
    max_position_embeddings=64,
)
