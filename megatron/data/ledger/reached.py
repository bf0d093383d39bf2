"""How much some samples of a blend take of each dataset in it, counted in its stored order and maps: nothing here reads a token."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from megatron.data.blendable_dataset import BlendableDataset
from megatron.data.gpt_dataset import SampleDataset
from megatron.data.mapped_dataset import MappedDataset

CHUNK = 1 << 20  # samples looked at together


def datasets_of(dataset: SampleDataset) -> tuple[MappedDataset, ...]:
    """The datasets of a blend, in its order; one that is no blend alone."""
    members = dataset.datasets if isinstance(dataset, BlendableDataset) else (dataset,)
    mapped = tuple(member for member in members if isinstance(member, MappedDataset))
    assert len(mapped) == len(members), "a blend is made of mapped datasets"
    return mapped


def taken(dataset: SampleDataset, samples: range, length: int) -> list[tuple[int, int]]:
    """(samples, tokens) that `samples`, cut to `length` tokens to predict, take of each of `datasets_of(dataset)`."""
    members = datasets_of(dataset)
    counts, tokens = [0] * len(members), [0] * len(members)
    for number, own in _shares(dataset, samples):
        counts[number] += len(own)
        tokens[number] += members[number].tokens_in(own, length)
    return list(zip(counts, tokens, strict=True))


def _shares(dataset: SampleDataset, samples: range) -> Iterator[tuple[int, range]]:
    """The samples as (number of a dataset, its own samples), some at a time."""
    for chunk in _chunks(samples, len(dataset)):
        if not isinstance(dataset, BlendableDataset):
            yield 0, chunk
            continue
        chosen = dataset.order["dataset"][chunk.start : chunk.stop]
        counts = np.bincount(chosen, minlength=len(dataset.datasets))
        for number in np.flatnonzero(counts).tolist():
            # A blend takes the samples of each dataset one after the other.
            first = int(dataset.order["sample"][chunk.start + int(np.argmax(chosen == number))])
            yield number, range(first, first + int(counts[number]))


def _chunks(samples: range, length: int) -> Iterator[range]:
    """The samples of a dataset of this length, which begins again behind its last one, as ranges inside it."""
    begin = samples.start
    while begin < samples.stop:
        end = min(begin + CHUNK, samples.stop, (begin // length + 1) * length)
        yield range(begin % length, begin % length + end - begin)
        begin = end
