"""Context parallelism: ranks that each have a part of the sequences trade it for a share of the heads around the core of attention.

The core then sees whole sequences, whatever it is (causal, windows, documents), and computes what it computes on one process: the
all-to-all of DeepSpeed-Ulysses, https://arxiv.org/abs/2309.14509. A rank sends and receives (c - 1) / c of its own queries, keys and
values, and of its own result.

Shapes: `s` sequence, `b` micro-batch, `c` context ranks, `n` query heads and `k` key/value heads of this tensor rank, `d` head size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from megatron.errors import NeoXError
from megatron.mpu.groups import Group
from megatron.mpu.mappings import trade_pieces
from megatron.neox_arguments.derive import derive_key_head_copies


class HeadExchange:
    """The trade among the ranks of `group`: rank r has the query heads [r n/c, (r + 1) n/c) inside the core; none for a group of one.

    Where ranks need the same key/value heads (c does not divide k), these are sent to all that need them, and the gradients summed.
    Raises NeoXError when n does not divide by c.
    """

    def __init__(self, *, heads: int, kv_heads: int, group: Group) -> None:
        if heads % group.size:
            raise NeoXError(
                f'the {heads} query heads of a tensor rank do not divide over "context_parallel_size" {group.size}'
            )
        self._group = group
        self._copies = derive_key_head_copies(heads, kv_heads, ranks=group.size)
        kv_share = kv_heads * self._copies // group.size
        self._shares = (heads // group.size, kv_share, kv_share)

    @property
    def first_head(self) -> int:
        """The number, among the n query heads, of the first one that this rank has inside the core."""
        return self._group.rank * self._shares[0]

    def enter(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """query [b, n, s/c, d], key and value [b, k, s/c, d] -> the same for all of s, and a share of the heads."""
        if self._group.size == 1:
            return query, key, value
        if self._copies > 1:
            key, value = (x.repeat_interleave(self._copies, dim=1) for x in (key, value))
        by_rank = [x.unflatten(1, (self._group.size, -1)).permute(1, 3, 0, 2, 4) for x in (query, key, value)]
        # One message for the three, and in the memory order of the fused projection: [c, s/c, b, heads, d].
        received = trade_pieces(torch.cat(by_rank, dim=3), self._group)
        heads = received.flatten(0, 1).permute(1, 2, 0, 3)  # [b, heads, s, d]
        query, key, value = heads.split(self._shares, dim=1)
        return query, key, value

    def leave(self, mixed: Tensor) -> Tensor:
        """The core's result [b, n/c, s, d] -> [s/c, b, n d]: this rank's part of the sequences again, all heads side by side."""
        by_sequence = mixed.permute(2, 0, 1, 3)  # [s, b, n/c, d]
        if self._group.size == 1:
            return by_sequence.flatten(2)
        received = trade_pieces(by_sequence.unflatten(0, (self._group.size, -1)), self._group)  # [c, s/c, b, n/c, d]
        return received.permute(1, 2, 0, 3, 4).flatten(2)
