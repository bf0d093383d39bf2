"""Whether the disk has room for a checkpoint, said before a run has trained up to the first one."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from megatron import text
from megatron.checkpointing.places import is_local, place
from megatron.checkpointing.ranks import Ranks
from megatron.checkpointing.saving.save import tensors_to_save
from megatron.engine.protocol import Engine, FullTensor
from megatron.log import get_logger

logger = get_logger(__name__)


def warn_of_little_room(directory: str | Path, engine: Engine, *, save_optimizer: bool) -> None:
    """A warning, on the first rank, when a checkpoint is larger than what is free where `directory` lies (collective).

    Stores have no such limit, or do not tell.
    """
    if not is_local(place(directory)):
        return
    ranks = Ranks(engine.groups.world, doing=f"measuring the free space of {directory}")
    of_ranks = ranks.every(lambda: bytes_of_state(tensors_to_save(engine, save_optimizer=save_optimizer)))
    if engine.groups.world.rank != 0:
        return
    needed, free = sum(of_ranks), shutil.disk_usage(place(directory)).free
    if needed > free:
        logger.warning(
            "a checkpoint takes %s, and %s are free in %s: free some space, or save elsewhere",
            text.memory(needed),
            text.memory(free),
            directory,
        )


def bytes_of_state(tensors: Mapping[str, FullTensor]) -> int:
    """Bytes of this process's pieces."""
    return sum(piece.tensor.nbytes for tensor in tensors.values() for piece in tensor.pieces)
