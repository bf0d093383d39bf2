"""What a run has read and in which order: `data.json` of a checkpoint.

A segment is a stretch of steps with the same data, order, batches and layout. A run has one; where it goes on with another batch size,
layout, length or, if that is allowed, other data, a new one begins. Together with the data, a segment says which tokens each of its
steps took, and those to come will take (see audit/).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from megatron.errors import DataError
from megatron.mpu.topology import Topology
from megatron.neox_arguments.batch_schedule import BatchSchedule
from megatron.neox_arguments.sequence_schedule import DiscreteLength, FullLength, RootLength

LEDGER = "data.json"
FORMAT = 1


@dataclass(frozen=True)
class DatasetFiles:
    """`path` + `.idx` and `.bin`, by its absolute path and by fingerprints of what the files hold, which copies share."""

    path: str
    idx: str
    bin: str

    def same_content(self, other: DatasetFiles | None) -> bool:
        """Whether both hold the same, wherever they lie."""
        return other is not None and (self.idx, self.bin) == (other.idx, other.bin)


@dataclass(frozen=True)
class Reached:
    """What the steps so far have read of a source. epochs: `tokens` as a share of the source's; padding is no token."""

    samples: int = 0
    tokens: int = 0
    epochs: float = 0.0


@dataclass(frozen=True)
class SourceRecord:
    """Documents first .. end - 1 of a dataset, which together have `tokens`.

    weight: asked for in a blend, in any unit; samples: of its maps, which decide their order together with the keys of the segment.
    """

    files: DatasetFiles
    labels: DatasetFiles | None
    documents: tuple[int, int]
    tokens: int
    weight: float
    samples: int
    reached: Reached = Reached()


@dataclass(frozen=True)
class OrderKeys:
    """Keys of the configuration that decide which tokens are in sample i."""

    seq_length: int
    pack_impl: Literal["packed", "pack_until_overflow", "unpacked"]
    allow_chopped: bool
    seed: int


@dataclass(frozen=True)
class Segment:
    """Steps `iteration`, `iteration` + 1, ... (from 0): `schedule` says their samples, `lengths` how much of each.

    is_split: whether the part is a split of one dataset (`data_path`) rather than a blend; num_samples: how many the maps were built for.
    """

    iteration: int
    train_iters: int
    schedule: BatchSchedule
    lengths: FullLength | RootLength | DiscreteLength
    micro_batch: int
    topology: Topology
    keys: OrderKeys
    is_split: bool
    num_samples: int
    sources: tuple[SourceRecord, ...]

    def continues(self, before: Segment) -> bool:
        """Whether this is `before` itself, met again when a run was resumed: from it nothing differs but how far it is."""
        mine, theirs = (replace(one, iteration=0, sources=_unread(one.sources)) for one in (self, before))
        return mine == theirs


@dataclass(frozen=True)
class Ledger:
    """All segments by rising iteration, and the data of evaluations by the names of the sets.

    iteration: steps made, and counted in what each segment has reached.
    """

    segments: Annotated[tuple[Segment, ...], Field(min_length=1)]
    evaluation: Mapping[str, tuple[SourceRecord, ...]] = field(default_factory=dict)
    iteration: int = 0
    format: int = FORMAT

    def stretches(self) -> Iterator[tuple[Segment, range]]:
        """Each segment with the numbers of its steps; the last one has as many as the run was to make."""
        ends = [segment.iteration for segment in self.segments[1:]] + [self.segments[-1].train_iters]
        for segment, end in zip(self.segments, ends, strict=True):
            yield segment, range(segment.iteration, end)

    def to_json(self) -> bytes:
        """For a checkpoint."""
        return _ADAPTER.dump_json(self, indent=1) + b"\n"

    @classmethod
    def from_json(cls, content: bytes) -> Ledger:
        """From a checkpoint. Raises ValueError for anything else."""
        return _ADAPTER.validate_json(content)


def read_ledger(checkpoint: Path) -> Ledger | None:
    """The ledger of a checkpoint; None when it was saved without one. Raises DataError when it cannot be read."""
    path = checkpoint / LEDGER
    try:
        content = path.read_bytes()
        written = _FORMAT_ADAPTER.validate_json(content).format
        if written > FORMAT:
            raise DataError(
                f"{path} has format {written}, and this version reads formats up to {FORMAT}: install a newer version."
            )
        return Ledger.from_json(content)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None
    except ValidationError as error:
        raise DataError(f"{path} is not a ledger that this version can read ({error.errors()[0]['msg']}).") from None


def _unread(sources: tuple[SourceRecord, ...]) -> tuple[SourceRecord, ...]:
    """The sources without how far they are and where they lie."""
    return tuple(
        replace(
            source,
            files=replace(source.files, path=""),
            labels=source.labels and replace(source.labels, path=""),
            reached=Reached(),
        )
        for source in sources
    )


@dataclass(frozen=True)
class _AnyFormat:
    """What a ledger has in every format."""

    format: int


_ADAPTER = TypeAdapter(Ledger)
_FORMAT_ADAPTER = TypeAdapter(_AnyFormat)
