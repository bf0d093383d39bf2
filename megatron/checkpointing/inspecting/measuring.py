"""One pass over the values of a checkpoint: the statistics of every tensor, and the logical hash."""

from __future__ import annotations

from megatron.checkpointing.digest import LogicalDigest
from megatron.checkpointing.inspecting.contents import Contents
from megatron.checkpointing.inspecting.statistics import Statistics, measure
from megatron.checkpointing.inspecting.tensors import iterate_tensors


def measure_all(contents: Contents, *, with_digest: bool = False) -> tuple[dict[str, Statistics], str | None]:
    """The statistics of every tensor by name, and `logical_sha256` if asked for. Raises DamagedCheckpoint as `iterate_tensors` does."""
    digest = LogicalDigest(contents.state) if with_digest else None
    measured = {}
    for name, tensor in iterate_tensors(contents.path):
        measured[name] = measure(tensor)
        if digest is not None:
            digest.add(name, tensor)
        del tensor  # or it would stay while the next one is read
    return measured, None if digest is None else digest.sha256()
