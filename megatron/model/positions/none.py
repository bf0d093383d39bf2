"""No position information beyond the causal mask."""

from __future__ import annotations

from megatron.model.positions.base import Positions


class NoPositions(Positions):
    """Adds nothing, rotates nothing."""
