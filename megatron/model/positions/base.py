"""A position scheme acts at three places: on token embeddings, on queries and keys, and on their scores. By default it does nothing at any.

Shapes: `s` sequence, `b` micro-batch, `h` hidden, `n` local heads, `d` head size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from megatron.fused_kernels import reference
from megatron.model.spec import BuildContext
from megatron.mpu.shard import InitMethod


@dataclass(frozen=True)
class Positions:
    """One scheme, as data; schemes take the same arguments and use those they need.

    max_positions: number of positions a model knows; head_dim: `d`; rotary_fraction: part of each head that is rotated
    (`rotary_pct`); rotary_base: wavelength base (`rotary_emb_base`); rotary_scaling: the keys and values of `rope_scaling`, () = none;
    offset: rows before position 0 (`opt_pos_emb_offset`); rotary: what rotates, `reference.rotary` or its kernel.
    """

    max_positions: int
    head_dim: int
    rotary_fraction: float = 1.0
    rotary_base: float = 10000
    rotary_scaling: tuple[tuple[str, Any], ...] = ()
    offset: int = 0
    rotary: Callable[[Tensor, Tensor, Tensor], Tensor] = reference.rotary

    def build_embedding(self, hidden_size: int, *, init: InitMethod, context: BuildContext) -> nn.Module | None:
        """A module from position_ids [b, s] to what is added to the hidden states [s, b, h], or None."""
        return None

    def rotate(self, query: Tensor, key: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Queries [b, n, s, d] and keys as attention uses them, given the positions [b, s] of their tokens."""
        return self.turn(query, key, self.angles(position_ids))

    def angles(self, position_ids: Tensor) -> Tensor | None:
        """What the tokens at these positions [b, s] are turned by, the same in all layers; None = they are not."""
        return None

    def turn(self, query: Tensor, key: Tensor, angles: Tensor | None) -> tuple[Tensor, Tensor]:
        """`rotate` by what `angles` gave."""
        return query, key

    def slopes(self, heads: int) -> tuple[float, ...] | None:
        """What a score of each of the model's `heads` query heads loses for a token between query and key; None = nothing in any."""
        return None
