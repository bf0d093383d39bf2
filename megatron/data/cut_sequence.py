"""This rank's part of the sequences of a batch, where ranks share sequences (context parallelism).

Parts are contiguous. Attention trades them for heads (`megatron.model.attention.head_exchange`), so that every rank has the same work
under a causal mask too, and nothing is gained by dealing out early and late pieces in turn.

Shapes: `b` micro-batch, `s` sequence length, `c` context ranks.
"""

from __future__ import annotations

from dataclasses import replace

from megatron.data.batch import Batch
from megatron.mpu.collectives import own_slice
from megatron.mpu.groups import Group


def cut_sequence(batch: Batch, group: Group) -> Batch:
    """This rank's [b, s / c] of everything that belongs to single tokens. Positions stay those in the whole sequence (or document).

    Document numbers stay whole: attention has all tokens. Raises ValueError when s does not divide by the group's size.
    """
    if group.size == 1:
        return batch
    return replace(
        batch,
        tokens=own_slice(batch.tokens, group, dim=1),
        labels=own_slice(batch.labels, group, dim=1),
        loss_mask=own_slice(batch.loss_mask, group, dim=1),
        position_ids=own_slice(batch.position_ids, group, dim=1),
    )
