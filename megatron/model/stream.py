"""What flows from layer to layer.

Shapes: `s` sequence (or its local part under sequence parallelism), `b` micro-batch, `h` hidden.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from megatron.model.documents import Documents
from megatron.model.dropout_keys import DropoutKeys

if TYPE_CHECKING:
    from megatron.model.cache import KeyValueCache


@dataclass(frozen=True)
class Stream:
    """The hidden states on their way through the specs.

    position_ids: positions of the tokens in their sequences; cache: keys and values of earlier tokens, only while generating;
    documents: what separates the documents of a sequence, None where its tokens see all that came before; dropout_keys: what masks of
    dropout follow from, None without dropout. Under context parallelism the hidden states and positions are those of this rank's part of
    the sequences, the documents those of all of it.
    """

    hidden: Tensor  # [s, b, h]
    position_ids: Tensor  # int64 [b, s], never split over tensor ranks
    cache: KeyValueCache | None = None
    documents: Documents | None = None
    dropout_keys: DropoutKeys | None = None

    def with_hidden(self, hidden: Tensor) -> Stream:
        """The same stream carrying other hidden states."""
        return replace(self, hidden=hidden)

    def tensors(self) -> tuple[Tensor, ...]:
        """What a pipeline stage sends to the next one, and what is kept to compute layers again."""
        numbers = () if self.documents is None else (self.documents.numbers,)
        keys = () if self.dropout_keys is None else (self.dropout_keys.keys,)
        return self.hidden, self.position_ids, *numbers, *keys

    @classmethod
    def of_tensors(cls, hidden: Tensor, position_ids: Tensor, *optional: Tensor) -> Stream:
        """The inverse of `tensors`: document numbers have the shape [b, s], keys of dropout [b]."""
        numbers = next((tensor for tensor in optional if tensor.dim() == 2), None)
        keys = next((tensor for tensor in optional if tensor.dim() == 1), None)
        return cls(hidden, position_ids, documents=Documents.of(numbers), dropout_keys=DropoutKeys.of(keys))
