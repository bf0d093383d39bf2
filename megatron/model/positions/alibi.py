"""ALiBi: a score loses an amount for each token between query and key, in every head another one; nothing is added to embeddings.

Press, Smith and Lewis 2022, https://arxiv.org/abs/2108.12409; the slopes are those of their program, of GPT-NeoX and of MPT.
"""

from __future__ import annotations

from megatron.model.positions.base import Positions


class AlibiPositions(Positions):
    """The score of a query with a key `i` tokens before it is `q k / sqrt(d) - slope i`, with a slope for each head."""

    def slopes(self, heads: int) -> tuple[float, ...]:
        """The slope of each of the `heads` query heads of the whole model."""
        return alibi_slopes(heads)


def alibi_slopes(heads: int) -> tuple[float, ...]:
    """For a power of two n: 2^(-8/n), 2^(-16/n), ... 2^-8; for any other number those of the next lower power of two, followed by the first,
    third, fifth ... of the next higher one."""
    lower = 1 << (heads.bit_length() - 1)
    return (_of_power_of_two(lower) + _of_power_of_two(2 * lower)[::2])[:heads]


def _of_power_of_two(heads: int) -> tuple[float, ...]:
    return tuple(2 ** (-8 * head / heads) for head in range(1, heads + 1))
