"""Whether a file of weights can be written where it is wanted."""

from __future__ import annotations

from pathlib import Path

from megatron.checkpointing.places import is_local, place
from megatron.errors import CheckpointError

SUFFIX = ".safetensors"


def output_file(text: str, *, force: bool) -> Path:
    """The file to write. Raises CheckpointError for another kind of file, one of a store, a missing directory, and one that exists (but with `force`)."""
    if not text.endswith(SUFFIX):
        raise CheckpointError(f"--consolidate {text}: a safetensors file is written; give a name that ends in {SUFFIX}")
    output = place(text)
    if not is_local(output):
        raise CheckpointError(
            f"--consolidate {text}: it must be a file of this machine, which may be uploaded afterwards"
        )
    if not output.parent.is_dir():
        raise CheckpointError(f"{output} cannot be written: the directory {output.parent} does not exist")
    if output.is_dir() or (output.exists() and not force):
        advice = "give another name" if output.is_dir() else "give another name, or --force to replace it"
        raise CheckpointError(f"{output} exists already: {advice}")
    return output
