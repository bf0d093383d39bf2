"""Which steps of a run read a document, or will read it: found in the stored index maps and the order of the blend.

A document stands at some positions of the map `documents` (in each epoch once), each position is part of one sample or of several, each
sample has its place in the shuffled order, and that its place in the blend. Each of these is searched for all at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron.data.audit.segment import AuditedSegment
from megatron.data.blendable_dataset import BlendableDataset
from megatron.data.gpt_dataset import SampleDataset
from megatron.data.ledger.reached import CHUNK, datasets_of
from megatron.data.mapped_dataset import MappedDataset
from megatron.data.piece import Piece


@dataclass(frozen=True)
class DocumentRead:
    """A sample with a document, or with a part of it.

    position: where the document stands in the map `documents` of its source; another time it stands elsewhere. lap: how many times the
    samples have been read to their end before.
    """

    source: int
    step: int
    data_rank: int
    micro_batch: int
    sample: int
    position: int
    lap: int
    piece: Piece


def reads_of(audited: AuditedSegment, source: int, document: int) -> list[DocumentRead]:
    """Each time that the steps of a segment read a document of the source of this number, in their order."""
    dataset = datasets_of(audited.dataset)[source]
    positions = _where(dataset.maps["documents"], document).tolist()
    pairs = [(number, position) for position in positions for number in dataset.samples_at(position)]
    own = _places_in_shuffle(dataset, np.array([number for number, _ in pairs], dtype=np.int64))
    places = _places_in_blend(audited.dataset, source, np.array(sorted(own.values()), dtype=np.int64))
    found = sorted((places[own[number]], position) for number, position in pairs if own[number] in places)
    samples, length = audited.samples, len(audited.dataset)
    laps = range(samples.start // length, -(-samples.stop // length))
    return [
        read
        for lap in laps
        for place, group in groupby(found, key=itemgetter(0))
        if lap * length + place in samples
        for read in _in_sample(audited, source, document, lap, place, [position for _, position in group])
    ]


def _in_sample(
    audited: AuditedSegment, source: int, document: int, lap: int, place: int, positions: Sequence[int]
) -> Iterator[DocumentRead]:
    """The reads in one sample of the segment, which has the document at these positions."""
    segment, sample = audited.segment, lap * len(audited.dataset) + place
    step = segment.schedule.steps_within(sample)
    row = segment.micro_batch * segment.topology.data
    micro_batch, rest = divmod(sample - segment.schedule.samples_before(step), row)
    pieces = [piece for piece in audited.pieces_of(step, sample) if piece.document == document]
    for position, piece in zip(
        positions, pieces, strict=False
    ):  # a step that takes the beginning alone has fewer pieces
        yield DocumentRead(source, step, rest // segment.micro_batch, micro_batch, sample, position, lap, piece)


def _where(values: NDArray[Any], wanted: int) -> NDArray[np.int64]:
    """The places of a value in a stored array, by rising place."""
    chunks = range(0, len(values), CHUNK)
    return np.concatenate([np.flatnonzero(values[begin : begin + CHUNK] == wanted) + begin for begin in chunks])


def _places_in_shuffle(dataset: MappedDataset, numbers: NDArray[np.int64]) -> dict[int, int]:
    """i by the number of the sample before shuffling, for which dataset[i] is that sample."""
    shuffle = dataset.maps["shuffle"]
    wanted = np.zeros(len(shuffle), dtype=np.bool_)
    wanted[numbers] = True
    found = dict[int, int]()
    for begin in range(0, len(shuffle), CHUNK):
        chunk = shuffle[begin : begin + CHUNK]
        places = np.flatnonzero(wanted[chunk])
        found |= zip(chunk[places].tolist(), (places + begin).tolist(), strict=True)
    return found


def _places_in_blend(blend: SampleDataset, source: int, own: NDArray[np.int64]) -> dict[int, int]:
    """The number in the blend of each of its source's `own` samples, which rise; those that it never comes to are left out."""
    if not isinstance(blend, BlendableDataset):
        return dict(zip(own.tolist(), own.tolist(), strict=True))
    found, before = dict[int, int](), 0
    for begin in range(0, len(blend), CHUNK):
        # A blend takes the samples of each dataset one after the other.
        places = np.flatnonzero(blend.order["dataset"][begin : begin + CHUNK] == source)
        here = own[(own >= before) & (own < before + len(places))]
        found |= zip(here.tolist(), (places[here - before] + begin).tolist(), strict=True)
        before += len(places)
    return found
