"""Models with random weights, in sizes that are well known, each tensor made when it is read: as large as need be and never in memory."""

from __future__ import annotations

import torch
from torch import Tensor

from megatron.checkpointing.names import WEIGHT
from megatron.conversion.mapping.architecture import Architecture
from megatron.conversion.mapping.shapes import parameter_shapes

STD = 0.02


def pythia(layers: int, hidden: int, heads: int, *, rows: int = 50304) -> Architecture:
    """The architecture of Pythia in a size. rows: of the vocabulary."""
    return Architecture(
        num_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        num_kv_heads=heads,
        head_dim=hidden // heads,
        mlp_width=4 * hidden,
        vocab_size=rows,
        max_position_embeddings=2048,
        gpt_j_residual=True,
        rotary_pct=0.25,
        use_bias_in_attn_linear=True,
        use_bias_in_attn_output=True,
        use_bias_in_mlp=True,
    )


MODELS = {"pythia 70M": pythia(6, 512, 8), "pythia 160M": pythia(12, 768, 12), "pythia 1B": pythia(16, 2048, 8)}


class RandomSource:
    """Random weights of an architecture as a TensorSource."""

    description = "random weights"

    def __init__(self, architecture: Architecture) -> None:
        self.shapes = {f"{each.name}/{WEIGHT}": each.shape for each in parameter_shapes(architecture)}

    def read(self, name: str) -> Tensor:
        """Normal values; gains of norms are around 1."""
        values = torch.empty(self.shapes[name]).normal_(std=STD)
        return values + 1 if name.endswith(f"norm.weight/{WEIGHT}") else values
