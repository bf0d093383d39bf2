"""What is checked of the samples of every step before they are trained on: token ids, and labels that are those of the text.

Shapes: `r` the samples that a rank reads for a step, `s` sequence length.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from megatron.data.batch import PADDING
from megatron.data.gpt_dataset import SampleDataset
from megatron.errors import DataError


def check_samples(samples: Tensor, dataset: SampleDataset, *, sample_of: Callable[[int], int], vocab_size: int) -> None:
    """Raise DataError for text [r, s + 1], or text and label data [r, 2, s + 1], that a run of this vocabulary cannot be trained on.

    sample_of: for a row, the number of the sample in `dataset`, which the message names the origin of.
    """
    text = samples if samples.dim() == 2 else samples[:, 0]
    _check_tokens(text, dataset, sample_of, vocab_size)
    if samples.dim() == 3:
        _check_labels(text, samples[:, 1], dataset, sample_of)


def _check_tokens(text: Tensor, dataset: SampleDataset, sample_of: Callable[[int], int], vocab_size: int) -> None:
    """An id that the embedding does not have would become an illegal access on a GPU."""
    text = torch.where(text == PADDING, 0, text)
    low, high = (int(value) for value in torch.aminmax(text))
    if low >= 0 and high < vocab_size:
        return
    row, _ = _first_place((text < 0) | (text >= vocab_size))
    raise DataError(
        f"{dataset.source_of(sample_of(row))} contains the token id {low if low < 0 else high}, but the vocabulary has {vocab_size} "
        "entries: the data was tokenised with another tokenizer than the one configured (vocab_file, tokenizer_type), or is damaged."
    )


def _check_labels(text: Tensor, labels: Tensor, dataset: SampleDataset, sample_of: Callable[[int], int]) -> None:
    """With labels of another text, which tokens would be trained on is anybody's guess."""
    wrong = (labels != text) & (labels != PADDING)
    if not wrong.any():
        return
    row, place = _first_place(wrong)
    raise DataError(
        f"{_origin(dataset, sample_of(row), place)} has the token {int(text[row, place])} where its label data says "
        f"{int(labels[row, place])}: a label is the token itself or {PADDING}. The two datasets were not written together; name the "
        "labels of this text, or tokenise the data again."
    )


def _first_place(wrong: Tensor) -> tuple[int, int]:
    row, place = wrong.nonzero()[0].tolist()
    return row, place


def _origin(dataset: SampleDataset, sample: int, place: int) -> str:
    """The document that token number `place` of a sample belongs to; the dataset, where that is padding."""
    end = 0
    for piece in dataset.pieces_of(sample):
        end += piece.length
        if place < end:
            return f"document {piece.document} of {piece.prefix}"
    return dataset.source_of(sample)
