"""The state of a run at one iteration, and the files of a checkpoint that it becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.state_dict_saver import save

from megatron.checkpointing.planners import PieceSavePlanner
from megatron.checkpointing.ranks import Ranks
from megatron.checkpointing.saving.hashing_writer import HashingWriter
from megatron.checkpointing.state_file import STATE, state_content
from megatron.engine.protocol import FullTensor


@dataclass(frozen=True)
class Snapshot:
    """The state of a run at one iteration: this rank's pieces of the tensors, and everything else. files: contents by name."""

    iteration: int
    tensors: dict[str, FullTensor]
    scalars: dict[str, float | int]
    run_state: Mapping[str, Any]
    config_yaml: str | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)


def write_tensors(tensors: dict[str, FullTensor], writer: HashingWriter, ranks: Ranks) -> Metadata:
    """Have every rank write its part of the tensors (collective); what they are, and where they lie."""
    return write_planned(PieceSavePlanner(tensors), writer, ranks)


def write_planned(planner: PieceSavePlanner, writer: HashingWriter, ranks: Ranks) -> Metadata:
    """`write_tensors` for the tensors of a planner."""
    with ranks.together():
        metadata: Metadata = save(
            {},
            storage_writer=writer,
            planner=planner,
            process_group=ranks.group.handle,
            no_dist=ranks.group.handle is None,
        )
    return metadata


def small_files(snapshot: Snapshot, metadata: Metadata, *, world_size: int) -> dict[str, bytes]:
    """The contents of all files but those of the tensors, by name. Raises CheckpointError when the run state is not for JSON."""
    state = state_content(
        metadata,
        iteration=snapshot.iteration,
        run_state=snapshot.run_state,
        scalars=snapshot.scalars,
        world_size=world_size,
    )
    files = {STATE: state, **snapshot.files}
    if snapshot.config_yaml is not None:
        files["configs/config.yml"] = snapshot.config_yaml.encode()
    return files
