"""What the masks of dropout follow from in a micro-batch: its samples, whatever rank computes which part of them.

Shapes: `b` micro-batch, `s` positions.
"""

from __future__ import annotations

from torch import Tensor

from megatron.mpu.random_bits import position_words


class DropoutKeys:
    """keys: int64 [b], one a sample and step (`megatron.mpu.random_bits.sample_keys`).

    One object serves all layers of a pipeline stage, so that the words of positions are made once a micro-batch.
    """

    def __init__(self, keys: Tensor) -> None:
        self.keys = keys
        self._words: dict[tuple[int, int], Tensor] = {}

    @classmethod
    def of(cls, keys: Tensor | None) -> DropoutKeys | None:
        """These keys, None where there are none."""
        return None if keys is None else cls(keys)

    def words(self, begin: int, count: int) -> Tensor:
        """int32 [s, b]: a random word for each of `count` positions from number `begin` in the whole sequence."""
        if (begin, count) not in self._words:
            self._words[begin, count] = position_words(self.keys, begin, count)
        return self._words[begin, count]
