"""Rotary positions: queries and keys are turned by angles proportional to their position, so scores depend on distances only.

Feature pair i of the r rotated features turns by `position / base^(2i / r)`, unless `rope_scaling` asks for other frequencies; pairs
are (i, i + r/2), the layout of GPT-NeoX and of Llama in Hugging Face. Angles, cosines and sines are fp32 whatever the model's type.

Shapes: `s` sequence, `b` micro-batch, `n` local heads, `d` head size, `r` rotated part of the head.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from megatron.model.positions.base import Positions
from megatron.neox_arguments.rope_scaling import scale


class RotaryPositions(Positions):
    """Rotates the first `int(head_dim * rotary_fraction)` features of each head."""

    def angles(self, position_ids: Tensor) -> Tensor:
        """Cosines and sines [2, b, 1, s, r] of the positions [b, s] (all below max_positions)."""
        width = int(self.head_dim * self.rotary_fraction)
        table = rotary_table(width, self.max_positions, self.rotary_base, self.rotary_scaling, position_ids.device)
        return table[:, position_ids].unsqueeze(2)

    def turn(self, query: Tensor, key: Tensor, angles: Tensor | None) -> tuple[Tensor, Tensor]:
        """Queries [b, n, s, d] and keys, turned by these angles."""
        assert angles is not None
        cosine, sine = angles  # each [b, 1, s, r]
        return self.rotary(query, cosine, sine), self.rotary(key, cosine, sine)


@lru_cache(maxsize=8)
def rotary_table(
    width: int, length: int, base: float, scaling: tuple[tuple[str, Any], ...], device: torch.device
) -> Tensor:
    """Cosines and sines [2, length, width] of every position, fp32, times the magnitude of the scaling.

    One table serves all layers. It is no buffer of a module, so that casting the model to half precision cannot touch it, and it
    is an ordinary tensor even when first needed in inference mode, so that training may use it later.
    """
    with torch.inference_mode(False), torch.no_grad():
        # On the CPU first: devices round powers differently, and angles of late positions would show it.
        frequencies, magnitude = rotary_frequencies(width, base, scaling)
        angles = torch.outer(torch.arange(length, dtype=torch.float32), frequencies)
        angles = torch.cat((angles, angles), dim=-1)
        return (torch.stack((angles.cos(), angles.sin())) * magnitude).to(device)


def rotary_frequencies(width: int, base: float, scaling: tuple[tuple[str, Any], ...]) -> tuple[Tensor, float]:
    """Radians a token of each pair, [width / 2] in fp32, and what rotated queries and keys are multiplied by."""
    frequencies = 1.0 / base ** (torch.arange(0, width, 2, dtype=torch.float32) / width)
    if not scaling:
        return frequencies, 1.0
    rotation = scale(frequencies.tolist(), base, dict(scaling))
    return torch.tensor(rotation.frequencies, dtype=torch.float32), rotation.magnitude
