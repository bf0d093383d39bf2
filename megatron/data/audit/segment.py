"""Which documents a step of a run read, or will read: from the ledger of a checkpoint and the datasets that it names, nothing else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

from megatron.data.datasets import Source, build_part
from megatron.data.gpt_dataset import SampleDataset
from megatron.data.indexed_dataset import IndexedDataset
from megatron.data.ledger.record import record_files
from megatron.data.ledger.segments import DatasetFiles, Ledger, Segment
from megatron.data.origins import Origins, read_origins
from megatron.data.piece import Piece
from megatron.data.samplers import BatchPlan, samples_of_step
from megatron.errors import DataError
from megatron.neox_arguments import NeoXArgs


@dataclass(frozen=True)
class SampleRead:
    """A sample of a step: who read it (a data-parallel rank, in which of its micro-batches) and what is in it, as far as it was used."""

    data_rank: int
    micro_batch: int
    sample: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Moves:
    """Where data is now that lay elsewhere when it was recorded: (path before, path now), of files or of directories."""

    pairs: tuple[tuple[str, str], ...] = ()

    def of(self, path: str) -> str:
        """Where `path` is now."""
        for old, new in self.pairs:
            inside = os.path.relpath(path, os.path.abspath(old))
            if not inside.startswith(os.pardir):
                return os.path.normpath(os.path.join(new, inside))
        return path


@dataclass(frozen=True)
class AuditedSegment:
    """Some `steps` of a run with the data they were, or will be, read from."""

    segment: Segment
    steps: range
    dataset: SampleDataset
    sources: tuple[Source, ...]

    @property
    def samples(self) -> range:
        """The numbers of the samples that the steps take. Where they are more than the dataset has, it begins again."""
        schedule = self.segment.schedule
        return range(schedule.samples_before(self.steps.start), schedule.samples_before(self.steps.stop))

    @cached_property
    def origins(self) -> dict[Path, Origins | None]:
        """Which files the documents of each dataset came from, by the dataset's prefix."""
        return {source.dataset.prefix: read_origins(source.dataset) for source in self.sources}

    def samples_of(self, step: int) -> list[SampleRead]:
        """All samples of step number `step`, rank by rank in the order of their micro-batches."""
        return [
            SampleRead(data_rank, micro, sample, self.pieces_of(step, sample))
            for data_rank in range(self.segment.topology.data)
            for micro, samples in enumerate(samples_of_step(step, self.plan(data_rank)))
            for sample in samples
        ]

    def pieces_of(self, step: int, sample: int) -> tuple[Piece, ...]:
        """What a sample consists of in this step, which may take its beginning alone."""
        return first_tokens(
            self.dataset.pieces_of(sample % len(self.dataset)), self.segment.lengths.length_of(step) + 1
        )

    def plan(self, data_rank: int) -> BatchPlan:
        """How the steps are divided, seen from a data-parallel rank."""
        segment = self.segment
        return BatchPlan(segment.micro_batch, segment.schedule, segment.topology.data, data_rank)

    def ranks_of(self, data_rank: int) -> list[int]:
        """The processes that worked on what a data-parallel rank read."""
        topology = self.segment.topology
        return [rank for rank in range(topology.world_size) if topology.coordinates(rank).data == data_rank]


def open_segment(args: NeoXArgs, segment: Segment, steps: range, moves: Moves) -> AuditedSegment:
    """Open the data of a segment; `args` are those of the checkpoint. Raises DataError when it is not there, or not what was read."""
    sources = tuple(
        Source(
            _open(source.files, moves),
            range(*source.documents),
            source.weight,
            None if source.labels is None else _open(source.labels, moves),
        )
        for source in segment.sources
    )
    keys = {**asdict(segment.keys), "data_path": segment.sources[0].files.path if segment.is_split else None}
    dataset = build_part(args.model_copy(update=keys), "train", sources, segment.num_samples)
    assert dataset is not None, "a segment has samples"
    return AuditedSegment(segment, steps, dataset, sources)


def segment_with(ledger: Ledger, step: int) -> tuple[Segment, range]:
    """The segment that step number `step` belongs to, and its steps. Raises DataError for a step that the run does not have."""
    stretches = list(ledger.stretches())
    for segment, steps in stretches:
        if step in steps:
            return segment, steps
    first, end = stretches[0][1].start, stretches[-1][1].stop
    raise DataError(f"step {step + 1} is not in this checkpoint's record, which knows steps {first + 1} to {end}.")


def first_tokens(pieces: Sequence[Piece], count: int) -> tuple[Piece, ...]:
    """The pieces that the first `count` tokens are in, the last one cut."""
    kept = list[Piece]()
    for piece in pieces:
        if count > 0:
            kept.append(replace(piece, length=min(piece.length, count)))
        count -= piece.length
    return tuple(kept)


def _open(files: DatasetFiles, moves: Moves) -> IndexedDataset:
    path = moves.of(files.path)
    try:
        dataset = IndexedDataset(path)
    except DataError as error:
        raise DataError(f"{error} If it lies elsewhere now, say so: --data OLD=NEW.") from None
    if not files.same_content(record_files(dataset)):
        raise DataError(
            f"{path} is not what the run read: its content has changed since. If what it was lies elsewhere, say so: --data OLD=NEW."
        )
    return dataset
