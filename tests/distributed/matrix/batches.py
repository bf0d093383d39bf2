"""The samples of a step, a function of cell and step alone, and each rank's share of them.

Shapes: rows of a global batch, `s` sequence.
"""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache

import torch

from megatron.data.batch import Batch, DocumentRules, build_batch
from megatron.data.cut_sequence import cut_sequence
from megatron.data.samplers import BatchPlan, samples_of_step
from megatron.mpu.groups import ProcessGroups
from megatron.mpu.random_bits import sample_keys
from tests.distributed.matrix.cell import ROWS, SEED, SEQUENCE, VOCABULARY, Cell

END_OF_DOCUMENT = 7
APART = DocumentRules(END_OF_DOCUMENT, mask_loss=True, reset_positions=True, reset_attention=True)


@cache
def global_batch(mask: str, step: int) -> Batch:
    """The samples of a step. "uneven": the first row counts nowhere, the last one nearly everywhere; "documents": packed, kept apart."""
    generator = torch.Generator().manual_seed(1000 + step)
    text = torch.randint(0, VOCABULARY, (ROWS, SEQUENCE + 1), generator=generator)
    chance = torch.rand(ROWS, SEQUENCE + 1, generator=generator, dtype=torch.float32)
    if mask == "documents":
        return build_batch(text.masked_fill(chance < 0.25, END_OF_DOCUMENT), APART)
    batch = build_batch(text)
    if mask == "uneven":
        kept = chance[:, 1:] < torch.linspace(0, 1, ROWS, dtype=torch.float32).unsqueeze(1)
        return replace(batch, loss_mask=kept.to(torch.float32))
    return batch


def own_batches(cell: Cell, groups: ProcessGroups, step: int) -> list[Batch]:
    """The micro-batches of this rank, divided as a run divides them."""
    micro_batch = ROWS // (cell.grid.data * cell.accumulation)
    plan = BatchPlan.constant(micro_batch, cell.accumulation, groups.data.size, groups.data.rank)
    whole, first = global_batch(cell.mask, step), step * ROWS
    batches = []
    for samples in samples_of_step(step, plan):
        share = _rows(whole, samples.start - first, samples.stop - first)
        keys = sample_keys(samples, seed=SEED, step=step) if cell.dropout else None
        batches.append(cut_sequence(replace(share, dropout_keys=keys), groups.context))
    return batches


def _rows(batch: Batch, begin: int, end: int) -> Batch:
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return Batch(**{name: None if value is None else value[begin:end] for name, value in values.items()})
