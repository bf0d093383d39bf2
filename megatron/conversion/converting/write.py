"""Writes a checkpoint of ours from any source of weights, tensor by tensor, so that it may be larger than memory. Any layout loads it."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import WriteResult

from megatron.checkpointing.layout import checkpoint_name, write_latest
from megatron.checkpointing.manifest import TENSOR_SUFFIX
from megatron.checkpointing.names import is_weight
from megatron.checkpointing.planners import PieceSavePlanner, narrow
from megatron.checkpointing.ranks import Ranks
from megatron.checkpointing.saving.hashing_writer import HashingWriter, item_bytes, plain_archives
from megatron.checkpointing.saving.save import complete
from megatron.checkpointing.saving.snapshot import Snapshot, write_planned
from megatron.conversion.source import TensorSource
from megatron.engine.protocol import FullTensor, Piece
from megatron.mpu.groups import SINGLE

FILE_BYTES = 1 << 32
"""A new file is begun after so many bytes."""


def write_checkpoint(source: TensorSource, directory: Path, *, config_yaml: str) -> Path:
    """Write the weights of `source`, in fp32, as the checkpoint of iteration 0 in `directory`, which exists and holds none; where it lies.

    A tensor is read once, and in memory only while it is written. Raises CheckpointError when it cannot be written, or the source not read.
    """
    checkpoint = directory / checkpoint_name(0)
    ranks = Ranks(SINGLE, doing=f"writing {checkpoint}")
    ranks.first(checkpoint.mkdir)
    writer = _InOrder(checkpoint)
    metadata = write_planned(_Reading(source), writer, ranks)
    snapshot = Snapshot(0, {}, {}, {}, config_yaml)
    ranks.first(lambda: complete(checkpoint, snapshot, metadata, [writer.facts()]))
    ranks.first(lambda: write_latest(directory, 0))
    return checkpoint


class _Reading(PieceSavePlanner):
    """Offers all weights of a source, and reads each when its first chunk is to be written."""

    def __init__(self, source: TensorSource) -> None:
        super().__init__({name: _whole(shape) for name, shape in source.shapes.items() if is_weight(name)})
        self._source = source
        self._newest: tuple[str, Tensor] | None = None

    def resolve_data(self, write_item: WriteItem) -> Tensor | io.BytesIO:
        """The part of its tensor, in fp32."""
        assert write_item.tensor_data is not None
        name, chunk = write_item.index.fqn, write_item.tensor_data.chunk
        if self._newest is None or self._newest[0] != name:
            self._newest = None  # before another one comes into memory
            self._newest = (name, self._source.read(name))
        return narrow(self._newest[1], chunk.offsets, chunk.sizes).to(torch.float32)


class _InOrder(HashingWriter):
    """Writes the chunks of each tensor one after the other, in one thread."""

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> torch.futures.Future[list[WriteResult]]:
        """Write all items in their order, which is that of the tensors. Raises OSError as files do."""
        results: list[WriteResult] = []
        with plain_archives():
            for number, items in enumerate(_files(plan.items)):
                results += self.write_file(f"{plan.storage_data.prefix}{number}{TENSOR_SUFFIX}", items, planner)
        finished: torch.futures.Future[list[WriteResult]] = torch.futures.Future()
        finished.set_result(results)
        return finished


def _files(items: list[WriteItem]) -> Iterator[list[WriteItem]]:
    """The items of each file."""
    ends = itertools.accumulate(map(item_bytes, items))
    numbered = zip((max(end - 1, 0) // FILE_BYTES for end in ends), items, strict=True)
    for _, of_file in itertools.groupby(numbered, key=lambda pair: pair[0]):
        yield [item for _, item in of_file]


def _whole(shape: tuple[int, ...]) -> FullTensor:
    """A tensor of which only the shape is there yet."""
    return FullTensor(shape, (Piece((0,) * len(shape), torch.empty(shape, device="meta")),))
