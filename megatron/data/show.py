"""What there is to see of a document or of a sample: token by token where it stands, where it comes from and whether it is predicted.

Looked at by `tools/datasets/show.py`; show_lines.py makes lines of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from megatron.data.batch import PADDING, Batch, DocumentRules, build_batch
from megatron.data.gpt_dataset import GPTDataset
from megatron.data.indexed_dataset import IndexedDataset
from megatron.data.maps.index_cache import StoredArrays
from megatron.data.maps.index_maps import build_index_maps, epochs_needed
from megatron.data.piece import Piece
from megatron.errors import DataError

DEFAULT_SEED = 1234  # of runs that name none
MOST_EPOCHS = 1000

PREDICTED = "+"
NOT_PREDICTED = "-"
WRONG = "!"
"""Marks of tokens: loss is taken where it is predicted; it is not; its label is neither the token itself nor "no loss"."""


@dataclass(frozen=True)
class ShownToken:
    """A token number, the position that the model is told, its mark, and what is to be said in front of it."""

    number: int
    position: int
    mark: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class View:
    """Tokens under a title; `padding` places behind them are empty."""

    title: str
    tokens: tuple[ShownToken, ...]
    padding: int = 0

    @property
    def predicted(self) -> int:
        """How many tokens carry loss."""
        return sum(token.mark == PREDICTED for token in self.tokens)


def view_of_document(dataset: IndexedDataset, document: int, labels: IndexedDataset | None = None) -> View:
    """A document as it is stored. Without labels every token counts as predicted. Raises DataError where there is no such document."""
    if not 0 <= document < len(dataset):
        raise DataError(
            f"there is no document {document} in {dataset.prefix}, which has {len(dataset)} of them, counted from 0."
        )
    tokens = dataset.get(document)
    marks = _marks(tokens, tokens if labels is None else labels.get(document))
    shown = [
        ShownToken(int(token), position, mark) for position, (token, mark) in enumerate(zip(tokens, marks, strict=True))
    ]
    return View(f"document {document} of {dataset.prefix}", tuple(shown))


def view_of_sample(
    sample: NDArray[np.int64], pieces: Sequence[Piece], *, title: str, rules: DocumentRules | None = None
) -> View:
    """A sample int64 [s + 1], or [2, s + 1] with labels, as training reads it; `pieces`: the parts of documents it is made of.

    Its first token is never predicted, and its last one is nothing but predicted.
    """
    rows = np.atleast_2d(sample)
    # With one more place behind them, all tokens of the sample are given positions, the last one as well.
    longer = torch.from_numpy(np.pad(rows, ((0, 0), (0, 1)), constant_values=PADDING))
    batch = build_batch(longer.unsqueeze(0) if len(rows) == 2 else longer, rules)
    predicted = [False, *batch.loss_mask[0, :-1].bool().tolist()]
    labels = np.where(predicted, rows[0], PADDING) if len(rows) == 1 else rows[1]
    marks = [
        NOT_PREDICTED if mark == PREDICTED and not counts else mark
        for mark, counts in zip(_marks(rows[0], labels), predicted, strict=True)
    ]
    notes = _notes(batch, pieces)
    used = int((rows[0] != PADDING).sum())
    positions = batch.position_ids[0].tolist()
    shown = [ShownToken(int(rows[0, i]), positions[i], marks[i], tuple(notes.get(i, ()))) for i in range(used)]
    return View(title, tuple(shown), padding=rows.shape[1] - used)


def views_of_packed_samples(
    dataset: IndexedDataset, numbers: Sequence[int], *, seq_length: int, labels: IndexedDataset | None = None
) -> Iterator[View]:
    """Samples of `seq_length` tokens of all documents, in the order of as many epochs as the last of `numbers` needs; nothing is stored.

    Raises DataError when the documents hold no tokens, or need to be repeated too often.
    """
    documents, count = range(len(dataset)), max(numbers) + 1
    tokens = dataset.tokens_of(documents)
    if tokens == 0:
        raise DataError(f"{dataset.prefix} holds no tokens: there is nothing to show. Tokenise the data again.")
    epochs = epochs_needed(count, tokens_per_epoch=tokens, seq_length=seq_length)
    if epochs > MOST_EPOCHS:
        raise DataError(
            f"sample {max(numbers)} of {seq_length} tokens is reached after {epochs - 1} passes over {dataset.prefix}, which has {tokens} "
            f"tokens: choose one that {MOST_EPOCHS} passes hold."
        )
    maps = build_index_maps(dataset.sizes, documents, seq_length=seq_length, num_samples=count, seed=DEFAULT_SEED)
    samples = GPTDataset(dataset, StoredArrays(maps), seq_length=seq_length, labels=labels)
    for number in numbers:
        yield view_of_sample(samples[number], samples.pieces_of(number), title=f"sample {number} of {dataset.prefix}")


def _marks(tokens: NDArray[Any], labels: NDArray[Any]) -> Iterator[str]:
    for token, label in zip(tokens.tolist(), labels.tolist(), strict=True):
        yield PREDICTED if label == token else NOT_PREDICTED if label == PADDING else WRONG


def _notes(batch: Batch, pieces: Sequence[Piece]) -> dict[int, list[str]]:
    """By place in the sample: the documents that begin or go on there, and what the rules of the run begin anew."""
    notes: dict[int, list[str]] = {}
    place = 0
    for piece in pieces:
        start = "" if piece.offset == 0 else f", from its token {piece.offset} on"
        notes[place] = [f"document {piece.document} of {piece.prefix}{start}"]
        place += piece.length
    positions = batch.position_ids[0].tolist()
    documents = None if batch.document_ids is None else batch.document_ids[0].tolist()
    for place in range(1, len(positions)):
        restarts = ["positions"] if positions[place] == 0 else []
        if documents is not None and documents[place] != documents[place - 1]:
            restarts.append("attention")
        if restarts:
            notes.setdefault(place, []).append(f"{' and '.join(restarts)} begin anew")
    return notes
