"""Reads the files of torch.distributed.checkpoint, on this machine or in a store: each saved chunk once, whatever is wanted of it.

The format is torch's own (`*.distcp`: a few files a rank, a `torch.save` archive a chunk; `.metadata`: what lies where).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem
from torch.distributed.checkpoint.storage import StorageReader
from torch.distributed.checkpoint.utils import _create_file_view

from megatron.checkpointing.errors import DamagedCheckpoint, reason_of
from megatron.checkpointing.places import is_local
from megatron.checkpointing.planners import narrow
from megatron.checkpointing.remote.ranges import RangeFile

METADATA = ".metadata"


class ChunkReader(StorageReader):
    """Reads a checkpoint directory in the order of its files; a chunk of which several parts are wanted is read once.

    Holds one chunk at a time beside the destination (from a store, up to `remote.ranges.WINDOW_BYTES` more).
    """

    def __init__(self, checkpoint: Path) -> None:
        super().__init__()
        self._checkpoint = checkpoint
        self._stored: dict[Any, Any] = {}

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Forget what lies where; a reader stays with its checkpoint."""
        assert checkpoint_id is None
        self._stored = {}

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """What the checkpoint holds; raises DamagedCheckpoint when that cannot be read."""
        path = self._checkpoint / METADATA
        try:
            metadata: Metadata = pickle.loads(path.read_bytes())
            assert metadata.storage_data is not None, "it does not say what lies where"
        except Exception as error:  # unpickling garbage may raise anything
            raise DamagedCheckpoint(f"{path} cannot be read ({type(error).__name__}: {error})") from error
        return metadata

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Take note of where each chunk lies."""
        self._stored = metadata.storage_data

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Nothing to add."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Ranks read independently."""
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> torch.futures.Future[None]:
        """Fill what the plan asks for; raises DamagedCheckpoint naming a file that is missing or cannot be read."""
        for name, items in itertools.groupby(
            sorted(plan.items, key=self._place), key=lambda item: self._place(item)[0]
        ):
            path = self._checkpoint / name
            try:
                with _parts_of(path) as part_of:
                    self._read_file(path, part_of, items, planner)
            except OSError as error:
                raise DamagedCheckpoint(f"{path} cannot be read ({reason_of(error)})") from error
        finished: torch.futures.Future[None] = torch.futures.Future()
        finished.set_result(None)
        return finished

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Never asked: readers are given their checkpoint."""
        return False

    def _read_file(self, path: Path, part_of: PartOf, items: Iterator[ReadItem], planner: LoadPlanner) -> None:
        for _, wanted in itertools.groupby(items, key=self._place):
            chunk: Tensor | None = None
            for item in wanted:
                if chunk is None:
                    chunk = self._read_chunk(path, part_of, item)
                destination = planner.resolve_tensor(item)
                destination.copy_(narrow(chunk, item.storage_offsets, item.lengths))
                planner.commit_tensor(item, destination)

    def _read_chunk(self, path: Path, part_of: PartOf, item: ReadItem) -> Tensor:
        stored = self._stored[item.storage_index]
        archive = part_of(stored.offset, stored.length)
        try:
            chunk: Tensor = torch.load(archive, map_location="cpu", weights_only=True)
        except OSError:
            raise
        except Exception as error:  # garbage may raise anything, with advice that does not fit
            name = item.storage_index.fqn
            raise DamagedCheckpoint(f"{path} cannot be read: what it holds of {name} is no tensor") from error
        return chunk

    def _place(self, item: ReadItem) -> tuple[str, int]:
        stored = self._stored[item.storage_index]
        return stored.relative_path, stored.offset


PartOf = Callable[[int, int], IO[bytes]]
"""The file of so many bytes (second) from an offset (first) on."""


@contextlib.contextmanager
def _parts_of(path: Path) -> Iterator[PartOf]:
    if is_local(path):
        with open(path, "rb") as file:
            yield lambda offset, length: cast("IO[bytes]", _create_file_view(file, offset, length))
    else:
        yield lambda offset, length: cast("IO[bytes]", RangeFile(path, offset, length))
