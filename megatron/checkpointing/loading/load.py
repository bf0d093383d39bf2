"""Loads a checkpoint into an engine of any layout: verified first, checked against the model, then read in place.

A damaged checkpoint is named and passed over for the one before it; one that does not fit the model is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.state_dict_loader import load

from megatron.checkpointing.errors import DamagedCheckpoint
from megatron.checkpointing.layout import (
    checkpoint_candidates,
    describe_directory,
    is_empty,
    latest_problem,
    no_loadable_checkpoint,
)
from megatron.checkpointing.loading.chunk_reader import ChunkReader
from megatron.checkpointing.loading.fit import check_fit, merge_shapes
from megatron.checkpointing.loading.verify import verify
from megatron.checkpointing.manifest import Verification
from megatron.checkpointing.names import is_weight
from megatron.checkpointing.places import place
from megatron.checkpointing.planners import PieceLoadPlanner
from megatron.checkpointing.ranks import Ranks
from megatron.checkpointing.settings import SETTINGS
from megatron.checkpointing.state_file import SavedState, Shapes, read_state
from megatron.engine.protocol import Engine, FullTensor
from megatron.errors import CheckpointError
from megatron.foreign import is_free
from megatron.log import get_logger
from megatron.mpu.groups import Group

logger = get_logger(__name__)


@dataclass(frozen=True)
class LoadedCheckpoint:
    """What was loaded, beside the tensors. run_state: the loop's counters as they were given to `save_checkpoint`."""

    iteration: int
    run_state: dict[str, Any]
    path: Path


def load_checkpoint(
    directory: str | Path,
    engine: Engine,
    *,
    iteration: int | None = None,
    load_optimizer: bool = True,
    if_exists: bool = False,
    verification: Verification = "fast",
) -> LoadedCheckpoint | None:
    """Load weights, optimizer state and scalars into the engine (all ranks call this); None only when `if_exists` and nothing is there.

    A directory that holds checkpoints which are all damaged, or one of another program, is an error all the same.

    directory: where checkpoints were saved (or one of them); iteration: which one, instead of the one `latest` names (then
    there is no going back to an earlier one); load_optimizer: False leaves optimizer state and scalars as they are;
    verification: "fast" checks names, sizes and the small files, "full" hashes everything, shared out among the ranks. Raises
    CheckpointError on every rank, naming what is wrong; the engine is untouched unless reading itself failed.
    """
    directory = place(directory)
    group = engine.groups.world
    ranks = Ranks(group, doing=f"loading from {directory}")
    if ranks.first(lambda: is_empty(directory)):
        if if_exists and ranks.first(lambda: is_free(directory)):
            return None
        raise CheckpointError(ranks.first(lambda: _nothing_to_load(directory)))
    tensors = {name: tensor for name, tensor in engine.state_tensors().items() if load_optimizer or is_weight(name)}
    checkpoint, state = load_tensors(directory, tensors, group=group, iteration=iteration, verification=verification)
    if load_optimizer:
        engine.load_scalars(state.scalars)
    engine.after_load()
    return LoadedCheckpoint(state.iteration, state.run_state, checkpoint)


def load_tensors(
    directory: Path,
    tensors: dict[str, FullTensor],
    *,
    group: Group,
    iteration: int | None = None,
    verification: Verification = "fast",
    prepare: Callable[[], None] = lambda: None,
) -> tuple[Path, SavedState]:
    """Fill `tensors` in place from the best checkpoint in a directory (collective over `group`); which it was, and what its state.json says.

    A damaged one is passed over for the one before it, which is a warning. prepare: called when a checkpoint is known to fit, before it
    is read. Raises CheckpointError on every rank when none can be loaded.
    """
    ranks = Ranks(group, doing=f"loading from {directory}")
    wanted = ranks.every(lambda: {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    candidates = ranks.first(lambda: checkpoint_candidates(directory, iteration=iteration))
    problem = ranks.first(lambda: latest_problem(directory)) if iteration is None else None
    reasons = [problem] if problem else []
    for candidate in candidates:
        ranks = Ranks(group, doing=f"loading {candidate.path}")
        try:
            verify(candidate.path, verification, ranks)
            state = ranks.first(lambda path=candidate.path: check_content(path, merge_shapes(wanted)))  # type: ignore[misc]
            prepare()
            read_tensors(candidate.path, tensors, ranks)
        except DamagedCheckpoint as error:
            reasons.append(str(error))
            continue
        if reasons and group.rank == 0:
            logger.warning("%s; loaded %s instead", "; ".join(reasons), candidate.path)
        return candidate.path, state
    raise CheckpointError(no_loadable_checkpoint(directory, reasons))


def check_content(checkpoint: Path, wanted: Shapes) -> SavedState:
    """What state.json of a verified checkpoint says, which holds the `wanted` tensors. Raises DamagedCheckpoint or CheckpointError."""
    ChunkReader(checkpoint).read_metadata()
    state = read_state(checkpoint)
    settings = checkpoint / SETTINGS
    advice = f"The settings it was trained with are in {settings}." if settings.exists() else ""
    check_fit(state.shapes, wanted, description=str(checkpoint), advice=advice)
    return state


def read_tensors(checkpoint: Path, tensors: dict[str, FullTensor], ranks: Ranks) -> None:
    """Fill the pieces of `tensors` in place from a checkpoint that was checked to hold them; collective over the ranks' group."""
    with ranks.together():
        load(
            dict(tensors),
            storage_reader=ChunkReader(checkpoint),
            planner=PieceLoadPlanner(),
            process_group=ranks.group.handle,
            no_dist=ranks.group.handle is None,
        )


def _nothing_to_load(directory: Path) -> str:
    sentence = f"there is no checkpoint to load in {directory}: {describe_directory(directory)}"
    return f"{sentence} (load_if_exists: true starts afresh where there is none)" if is_free(directory) else sentence
