"""`state.json`: everything of a checkpoint that is not a tensor, and what the tensors are."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron.checkpointing.errors import DamagedCheckpoint
from megatron.checkpointing.files import to_json
from megatron.checkpointing.names import dtype_name
from megatron.checkpointing.saving.source_version import source_version
from megatron.environment import job_id
from megatron.errors import CheckpointError

if TYPE_CHECKING:
    from torch.distributed.checkpoint.metadata import Metadata

STATE = "state.json"
FORMAT = 1

Shapes = dict[str, tuple[int, ...]]
"""The shape of every full tensor by name (`"{parameter}/weight"`, `"{parameter}/exp_avg"`, ...)."""


@dataclass(frozen=True)
class SavedState:
    """What state.json says. scalars: of the optimizer; run_state: the loop's counters, given back as they were; content: all of it."""

    iteration: int
    run_state: dict[str, Any]
    scalars: dict[str, float | int]
    shapes: Shapes
    content: Mapping[str, Any] = field(default_factory=dict)


def state_content(
    metadata: Metadata,
    *,
    iteration: int,
    run_state: Mapping[str, Any],
    scalars: Mapping[str, float | int],
    world_size: int,
) -> bytes:
    """The content of state.json. Raises CheckpointError when `run_state` holds something that JSON cannot."""
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata  # reading this file needs no torch

    tensors = {
        name: {"shape": list(facts.size), "dtype": dtype_name(facts.properties.dtype)}
        for name, facts in sorted(metadata.state_dict_metadata.items())
        if isinstance(facts, TensorStorageMetadata)
    }
    try:
        return to_json(
            {
                "format": FORMAT,
                "iteration": iteration,
                "run_state": dict(run_state),
                "scalars": dict(scalars),
                "saved_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "job": job_id(),
                "world_size": world_size,
                "versions": _versions(),
                "source": source_version(),
                "tensors": tensors,
            }
        )
    except TypeError as error:
        raise CheckpointError(f"the run state cannot be written as JSON ({error})") from error


def read_state(checkpoint: Path) -> SavedState:
    """What state.json of a checkpoint says.

    Raises DamagedCheckpoint when it cannot be read, CheckpointError when a newer version of the framework wrote it.
    """
    path = checkpoint / STATE
    try:
        content = json.loads(path.read_bytes())
        written_format = int(content["format"])
        if written_format > FORMAT:
            raise CheckpointError(
                f"{path} has format {written_format}, and this version reads formats up to {FORMAT}: install a newer version"
            )
        shapes = {name: tuple(facts["shape"]) for name, facts in content["tensors"].items()}
        return SavedState(
            int(content["iteration"]), dict(content["run_state"]), dict(content["scalars"]), shapes, content
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedCheckpoint(f"{path} cannot be read ({type(error).__name__}: {error})") from error


@functools.cache
def _versions() -> dict[str, str]:
    import torch

    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
    for package in ("deepy-neox", "deepspeed"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions
