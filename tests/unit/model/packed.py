"""Packed samples for tests, and the same documents each alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from megatron.data.batch import Batch, DocumentRules, build_batch
from megatron.model.loss import masked_loss_sum
from megatron.model.sequential import SequentialModel
from megatron.mpu.groups import SINGLE, Group
from tests.unit.model.builders import VOCAB_SIZE, parameters_by_name

EOD = 7
ALONE = DocumentRules(EOD, mask_loss=True, reset_positions=True, reset_attention=True)
MASK_ALONE = replace(ALONE, reset_positions=False)
TOGETHER = replace(ALONE, reset_positions=False, reset_attention=False)


def packed_text(*, rows: int = 2, length: int = 16) -> Tensor:
    """Text [rows, length + 1] of documents of different lengths in each row: cut ones at both ends, one of a single token."""
    generator = torch.Generator().manual_seed(11)
    text = torch.randint(EOD + 1, VOCAB_SIZE, (rows, length + 1), generator=generator)
    for row, ends in zip(text, ((4, 5, 11), (0, 7), (2, 9, 16), (6,)) * rows, strict=False):
        row[[end for end in ends if end <= length]] = EOD
    return text


def documents_of(batch: Batch) -> Iterator[Batch]:
    """Each document of a batch as a batch of its own, one row without padding, positions from 0."""
    for tokens, labels, mask in zip(batch.tokens, batch.labels, batch.loss_mask, strict=True):
        ends = [int(end) + 1 for end in (tokens == EOD).nonzero()]
        for begin, end in zip([0, *ends], [*ends, len(tokens)], strict=True):
            if begin < end:
                rows = (x[begin:end].unsqueeze(0) for x in (tokens, labels, mask))
                yield Batch(*rows, position_ids=torch.arange(end - begin).unsqueeze(0))


def gradients_of(model: SequentialModel, batches: list[Batch], group: Group = SINGLE) -> tuple[Tensor, dict[str, Any]]:
    """The summed loss of the batches and the gradient of each parameter, by name."""
    model.zero_grad()
    total = torch.zeros((), dtype=torch.float64, device=batches[0].tokens.device)
    for batch in batches:
        logits = model(batch.tokens, batch.position_ids, document_ids=batch.document_ids)
        loss = masked_loss_sum(logits, batch.labels, batch.loss_mask, group, VOCAB_SIZE)
        loss.backward()
        total += loss.detach()
    return total, {name: value.grad.clone() for name, value in parameters_by_name(model).items()}


def packed(rules: DocumentRules, **shape: int) -> Batch:
    """The packed samples as the model sees them."""
    return build_batch(packed_text(**shape), rules)
