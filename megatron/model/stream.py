"""What flows from layer to layer.

Shapes: `s` sequence (or its local part under sequence parallelism), `b` micro-batch, `h` hidden.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from megatron.model.documents import Documents

if TYPE_CHECKING:
    from megatron.model.cache import KeyValueCache


@dataclass(frozen=True)
class Stream:
    """The hidden states on their way through the specs.

    position_ids: positions of the tokens in their sequences; cache: keys and values of earlier tokens, only while generating;
    documents: what separates the documents of a sequence, None where its tokens see all that came before.
    """

    hidden: Tensor  # [s, b, h]
    position_ids: Tensor  # int64 [b, s], never split over ranks
    cache: KeyValueCache | None = None
    documents: Documents | None = None

    def with_hidden(self, hidden: Tensor) -> Stream:
        """The same stream carrying other hidden states."""
        return replace(self, hidden=hidden)

    def places(self) -> tuple[Tensor, KeyValueCache | None, Documents | None]:
        """What attention is told about the tokens besides their hidden states."""
        return self.position_ids, self.cache, self.documents

    def tensors(self) -> tuple[Tensor, ...]:
        """What a pipeline stage sends to the next one, and what is kept to compute layers again."""
        numbers = () if self.documents is None else (self.documents.numbers,)
        return self.hidden, self.position_ids, *numbers

    @classmethod
    def of_tensors(cls, hidden: Tensor, position_ids: Tensor, document_ids: Tensor | None = None) -> Stream:
        """The inverse of `tensors`."""
        return cls(hidden, position_ids, documents=Documents.of(document_ids))
