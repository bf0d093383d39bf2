"""One micro-batch as the model and the objective see it, and how samples become it.

Shapes: `b` micro-batch, `s` sequence length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from megatron.neox_arguments import NeoXArgs

PADDING = -100
"""Stands in samples behind the text: read as token 0, and never predicted. It is the number for "no loss" in label data."""


@dataclass(frozen=True)
class Batch:
    """`tokens` predict `labels` (the same text, one position later) wherever `loss_mask` is not zero."""

    tokens: Tensor  # int64 [b, s]
    labels: Tensor  # int64 [b, s]
    loss_mask: Tensor  # float32 [b, s]
    position_ids: Tensor  # int64 [b, s]
    document_ids: Tensor | None = (
        None  # int32 [b, s], rising in each row; a token sees its own document only. None: the whole row
    )
    dropout_keys: Tensor | None = None  # int64 [b], see `mpu.random_bits.sample_keys`. None: the model has no dropout


@dataclass(frozen=True)
class DocumentRules:
    """What the end of a document changes: the token `eod_token`, which is the last one of its document.

    mask_loss: it predicts nothing, as what follows is another document (`eod_mask_loss`); reset_positions: positions begin at 0 behind
    it (`reset_position_ids`); reset_attention: what follows does not see what was before (`reset_attention_mask`).
    """

    eod_token: int
    mask_loss: bool = False
    reset_positions: bool = False
    reset_attention: bool = False


def document_rules(args: NeoXArgs, *, eod_token: int) -> DocumentRules | None:
    """What the end of a document changes by the configuration; None where it changes nothing."""
    if not (args.eod_mask_loss or args.reset_position_ids or args.reset_attention_mask):
        return None
    return DocumentRules(
        eod_token,
        mask_loss=args.eod_mask_loss,
        reset_positions=args.reset_position_ids,
        reset_attention=args.reset_attention_mask,
    )


def build_batch(samples: Tensor, rules: DocumentRules | None = None) -> Batch:
    """A micro-batch from text [b, s + 1], in which PADDING may stand behind documents, or from text and label data [b, 2, s + 1].

    Label data has the token itself where it is to be predicted and PADDING where not. Without rules a row is one document.
    """
    text, trained = samples.unbind(1) if samples.dim() == 3 else (samples, samples)
    is_text = text != PADDING
    filled = torch.where(is_text, text, 0)
    tokens, labels, mask = filled[:, :-1].contiguous(), filled[:, 1:].contiguous(), trained[:, 1:] != PADDING
    places = torch.arange(tokens.shape[1], device=text.device).expand_as(tokens).contiguous()
    if rules is None:
        return Batch(tokens, labels, mask.to(torch.float32), places)
    is_end = (tokens == rules.eod_token) & is_text[:, :-1]  # padding is no document, whatever the number of the token
    is_start = is_end.roll(1, dims=1)
    is_start[:, 0] = True
    return Batch(
        tokens=tokens,
        labels=labels,
        loss_mask=(mask & ~is_end if rules.mask_loss else mask).to(torch.float32),
        position_ids=places - _latest(places, is_start) if rules.reset_positions else places,
        document_ids=is_start.cumsum(dim=1, dtype=torch.int32) - 1 if rules.reset_attention else None,
    )


def _latest(places: Tensor, is_start: Tensor) -> Tensor:
    """For each place of a row the latest one before it, or itself, where `is_start` holds: [b, s]."""
    return torch.where(is_start, places, 0).cummax(dim=1).values
