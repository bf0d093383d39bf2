"""Rotary positions: queries and keys are turned by angles proportional to their position, so scores depend on distances only.

Feature pair i of the r rotated features turns by `position / base^(2i / r)`; pairs are (i, i + r/2), the layout of GPT-NeoX and of
Llama in Hugging Face. Angles, cosines and sines are fp32 whatever the model's type.

Shapes: `s` sequence, `b` micro-batch, `n` local heads, `d` head size, `r` rotated part of the head.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from megatron.fused_kernels import reference
from megatron.model.positions.base import Positions


class RotaryPositions(Positions):
    """Rotates the first `int(head_dim * rotary_fraction)` features of each head."""

    def rotate(self, query: Tensor, key: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Queries [b, n, s, d] and keys, turned by the angles of position_ids [b, s] (all below max_positions)."""
        width = int(self.head_dim * self.rotary_fraction)
        table = rotary_table(width, self.max_positions, self.rotary_base, query.device)
        cosine, sine = table[:, position_ids].unsqueeze(2)  # each [b, 1, s, r]
        return reference.rotary(query, cosine, sine), reference.rotary(key, cosine, sine)


@lru_cache(maxsize=8)
def rotary_table(width: int, length: int, base: float, device: torch.device) -> Tensor:
    """Cosines and sines [2, length, width] of every position, fp32.

    One table serves all layers. It is no buffer of a module, so that casting the model to half precision cannot touch it, and it
    is an ordinary tensor even when first needed in inference mode, so that training may use it later.
    """
    with torch.inference_mode(False), torch.no_grad():
        # On the CPU first: devices round powers differently, and angles of late positions would show it.
        exponents = torch.arange(0, width, 2, dtype=torch.float32) / width
        positions = torch.arange(length, dtype=torch.float32)
        angles = torch.outer(positions, 1.0 / base**exponents)
        angles = torch.cat((angles, angles), dim=-1)
        return torch.stack((angles.cos(), angles.sin())).to(device)
