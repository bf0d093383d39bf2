"""How likely a model finds each token of the sequences of a dataset, of any length, given as much before it as the model reads well."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron.data.indexed_dataset import IndexedDataset
from megatron.errors import DataError
from megatron.generation.model import InferenceModel, computes_nan
from megatron.generation.scoring import Scored, score

TOKENS_AT_ONCE = 1 << 18
"""Tokens of sequences that are scored together, about; only their numbers are held in memory."""


@dataclass(frozen=True)
class Window:
    """Tokens of a sequence that are read together, from `begin` up to `end`; those from `first` on are scored."""

    begin: int
    first: int
    end: int


def windows(length: int, positions: int) -> Iterator[Window]:
    """The windows of a sequence of `length` tokens, for a model that reads `positions`; each token but the first is scored once.

    A token has all those before it as its context where that fits: of the first `positions` + 1 tokens, the last is scored and not read.
    Further windows overlap, so that each token has half of the positions at least.
    """
    end = min(length, positions + 1)
    if end > 1:
        yield Window(0, 1, end)
    while end < length:
        first, end = end, min(length, end + max(positions // 2, 1))
        yield Window(end - positions - 1, first, end)


def score_sequences(
    model: InferenceModel, dataset: IndexedDataset, *, vocab_size: int, positions: int, batch_size: int
) -> Iterator[NDArray[np.float32]]:
    """For each sequence in order fp32 [its length]: at i the log-probability of its token i + 1, last 0; on every rank of the model.

    vocab_size: rows of the vocabulary without padding; positions: the most that the model reads; batch_size: windows that are read at
    once. Raises DataError for a token that the model does not have, and where it computes NaN.
    """
    for numbers in _together(dataset.sizes):
        sequences = [_checked(dataset, number, vocab_size) for number in numbers]
        places = [(row, window) for row, tokens in enumerate(sequences) for window in windows(len(tokens), positions)]
        requests = [
            Scored(tuple(sequences[row][each.begin : each.first]), tuple(sequences[row][each.first : each.end]))
            for row, each in places
        ]
        found = [np.zeros(len(tokens), dtype=np.float32) for tokens in sequences]
        for (row, each), its in zip(
            places, score(model, requests, vocab_size=vocab_size, batch_size=batch_size), strict=True
        ):
            if math.isnan(its.log_likelihood):
                raise computes_nan(f"sequence {numbers[row]} of {dataset.prefix}")
            found[row][each.first - 1 : each.end - 1] = its.log_probabilities
        yield from found


def _together(sizes: NDArray[np.int32]) -> Iterator[range]:
    """The numbers of sequences that are scored together."""
    begin = tokens = 0
    for number, size in enumerate(sizes.tolist()):
        tokens += size
        if tokens >= TOKENS_AT_ONCE:
            yield range(begin, number + 1)
            begin, tokens = number + 1, 0
    if begin < len(sizes):
        yield range(begin, len(sizes))


def _checked(dataset: IndexedDataset, number: int, vocab_size: int) -> list[Any]:
    """The tokens of a sequence."""
    tokens: list[Any] = dataset[number].tolist()
    lowest, highest = min(tokens), max(tokens)
    if lowest < 0 or highest >= vocab_size:
        raise DataError(
            f"sequence {number} of {dataset.prefix} holds token {lowest if lowest < 0 else highest}, and the model has tokens 0 to {vocab_size - 1}: "
            "give the tokenizer with which the data was tokenised."
        )
    return tokens
