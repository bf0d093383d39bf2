"""The tensors of a checkpoint, whole and one at a time, whatever layout wrote them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from megatron.checkpointing.errors import DamagedCheckpoint
from megatron.checkpointing.inspecting.contents import SavedTensor
from megatron.checkpointing.loading.chunk_reader import ChunkReader
from megatron.checkpointing.names import dtype_name
from megatron.checkpointing.planners import PieceLoadPlanner
from megatron.engine.protocol import FullTensor, Piece
from megatron.errors import CheckpointError
from megatron.registry import did_you_mean


class TensorReader(Mapping[str, Tensor]):
    """The tensors of the checkpoint directory `checkpoint` (local or remote) by name, each read, whole, when it is asked for.

    saved: what it holds, in the order of names. Raises DamagedCheckpoint when the list cannot be read. Nothing is verified against the
    manifest: `check_files` does that.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self._reader = ChunkReader(checkpoint)
        self._metadata = self._reader.read_metadata()
        self._reader.set_up_storage_reader(self._metadata, is_coordinator=True)
        self.saved = {
            name: SavedTensor(name, tuple(facts.size), dtype_name(facts.properties.dtype))
            for name, facts in sorted(self._metadata.state_dict_metadata.items())
            if isinstance(facts, TensorStorageMetadata)
        }

    def __iter__(self) -> Iterator[str]:
        return iter(self.saved)

    def __len__(self) -> int:
        return len(self.saved)

    def __contains__(self, name: object) -> bool:
        return name in self.saved

    def __getitem__(self, name: str) -> Tensor:
        """One tensor in the dtype it was saved in; holds one saved chunk beside it meanwhile.

        Raises DamagedCheckpoint when a file is missing or cannot be read.
        """
        saved = self.saved[name]
        self._check_cover(saved)
        tensor = torch.empty(saved.shape, dtype=getattr(torch, saved.dtype))
        planner = PieceLoadPlanner()
        whole = FullTensor(saved.shape, (Piece((0,) * tensor.dim(), tensor),))
        planner.set_up_planner({name: whole}, self._metadata)
        self._reader.read_data(planner.create_local_plan(), planner)
        return tensor

    def check_names(self, names: Iterable[str]) -> None:
        """Raise CheckpointError for a name that is not here."""
        for name in names:
            if name not in self.saved:
                raise CheckpointError(
                    f'{self.checkpoint} holds no tensor "{name}"{did_you_mean(name, list(self.saved))}'
                )

    def _check_cover(self, saved: SavedTensor) -> None:
        """What no chunk holds would be read as whatever lay in memory."""
        facts = self._metadata.state_dict_metadata[saved.name]
        assert isinstance(facts, TensorStorageMetadata)
        held = sum(math.prod(tuple(chunk.sizes)) for chunk in facts.chunks)
        if held != saved.elements:
            raise DamagedCheckpoint(f"{self.checkpoint} holds {held} of the {saved.elements} elements of {saved.name}")


def iterate_tensors(checkpoint: Path, names: Iterable[str] | None = None) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a checkpoint, or those with these names, in the order of names; each is read when it is asked for.

    One tensor and one saved chunk are in memory at a time if the caller lets go of a tensor before asking for the next: a loop's
    variable does not (`del` it at the end of the body); `itertools.starmap(function, iterate_tensors(...))` does.
    Errors as of `TensorReader`, and CheckpointError for a name that is not there.
    """
    reader = TensorReader(checkpoint)
    wanted = list(reader.saved) if names is None else sorted(names)
    reader.check_names(wanted)
    for name in wanted:
        yield name, reader[name]
