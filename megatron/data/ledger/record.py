"""From the data that a run has opened to the records of its ledger."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from megatron.data.datasets import Source
from megatron.data.gpt_dataset import SampleDataset
from megatron.data.indexed_dataset import IndexedDataset
from megatron.data.ledger.reached import datasets_of, taken
from megatron.data.ledger.segments import DatasetFiles, Ledger, OrderKeys, Reached, Segment, SourceRecord
from megatron.mpu.topology import Topology
from megatron.neox_arguments.batch_schedule import BatchSchedule
from megatron.neox_arguments.sequence_schedule import runs_of_length, sequence_schedule

if TYPE_CHECKING:
    from megatron.neox_arguments import NeoXArgs


def record_segment(
    args: NeoXArgs,
    dataset: SampleDataset,
    sources: Sequence[Source],
    *,
    iteration: int,
    schedule: BatchSchedule,
    topology: Topology,
    num_samples: int,
) -> Segment:
    """The segment of a run from step number `iteration` on; `dataset` was built of `sources` for `num_samples` samples."""
    assert args.train_iters is not None, "resolve_epochs comes first"
    return Segment(
        iteration=iteration,
        train_iters=args.train_iters,
        schedule=schedule,
        lengths=sequence_schedule(args),
        micro_batch=args.train_micro_batch_size_per_gpu,
        topology=topology,
        keys=order_keys(args),
        is_split=bool(args.data_path),
        num_samples=num_samples,
        sources=record_sources(sources, dataset),
    )


def order_keys(args: NeoXArgs) -> OrderKeys:
    """The keys of a configuration that decide the order."""
    return OrderKeys(args.seq_length, args.pack_impl, args.allow_chopped, args.seed)


def record_sources(sources: Sequence[Source], dataset: SampleDataset | None = None) -> tuple[SourceRecord, ...]:
    """The sources of a part. dataset: what was built of them, to tell how many samples of each there are; without it there are 0."""
    lengths = [0] * len(sources) if dataset is None else [len(member) for member in datasets_of(dataset)]
    return tuple(
        SourceRecord(
            files=record_files(source.dataset),
            labels=None if source.labels is None else record_files(source.labels),
            documents=(source.documents.start, source.documents.stop),
            tokens=source.tokens,
            weight=source.weight,
            samples=samples,
        )
        for source, samples in zip(sources, lengths, strict=True)
    )


def record_files(dataset: IndexedDataset) -> DatasetFiles:
    """Where a dataset lies and what it holds."""
    return DatasetFiles(os.path.abspath(dataset.prefix), *dataset.content)


def reach(ledger: Ledger, dataset: SampleDataset, iteration: int) -> Ledger:
    """The ledger of a run that has made `iteration` steps, the last ones with `dataset`, which is that of the last segment.

    Only what the steps since `ledger.iteration` have read is counted.
    """
    *earlier, segment = ledger.segments
    sources = segment.sources
    for first, end, length in runs_of_length(segment.lengths, range(ledger.iteration, iteration)):
        samples = range(segment.schedule.samples_before(first), segment.schedule.samples_before(end))
        read = taken(dataset, samples, length)
        sources = tuple(
            replace(source, reached=_further(source, *more)) for source, more in zip(sources, read, strict=True)
        )
    return replace(ledger, segments=(*earlier, replace(segment, sources=sources)), iteration=iteration)


def _further(source: SourceRecord, samples: int, tokens: int) -> Reached:
    tokens += source.reached.tokens
    return Reached(source.reached.samples + samples, tokens, tokens / source.tokens if source.tokens else 0.0)
