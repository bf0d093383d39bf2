"""Every file of a checkpoint compared with what its manifest says of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from megatron.checkpointing.errors import DamagedCheckpoint
from megatron.checkpointing.manifest import check_file, read_manifest


def problems_of(checkpoint: Path) -> Iterator[str]:
    """A sentence for each file that is missing, or whose size or SHA-256 is another; nothing for a checkpoint that is whole."""
    try:
        listed = list(read_manifest(checkpoint))
    except DamagedCheckpoint as error:
        yield str(error)
        return
    for name, facts in listed:
        try:
            check_file(checkpoint / name, facts, hashed=True)
        except DamagedCheckpoint as error:
            yield str(error)
