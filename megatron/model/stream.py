"""What flows from layer to layer.

Shapes: `s` sequence (or its local part under sequence parallelism), `b` micro-batch, `h` hidden.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from megatron.model.cache import KeyValueCache


@dataclass(frozen=True)
class Stream:
    """The hidden states on their way through the specs.

    position_ids: positions of the tokens in their sequences; cache: keys and values of earlier tokens, only while generating.
    """

    hidden: Tensor  # [s, b, h]
    position_ids: Tensor  # int64 [b, s], never split over ranks
    cache: KeyValueCache | None = None

    def with_hidden(self, hidden: Tensor) -> Stream:
        """The same stream carrying other hidden states."""
        return replace(self, hidden=hidden)

    def tensors(self) -> tuple[Tensor, Tensor]:
        """What a pipeline stage sends to the next one; `Stream(*tensors)` is its inverse."""
        return self.hidden, self.position_ids
