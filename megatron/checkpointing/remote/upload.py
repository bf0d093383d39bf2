"""Uploads a checkpoint that is complete on disk (`s3_path`)."""

from __future__ import annotations

from pathlib import Path

from megatron.checkpointing.balance import balanced
from megatron.checkpointing.files import FileFacts
from megatron.checkpointing.layout import iteration_of, read_latest, write_latest
from megatron.checkpointing.manifest import MANIFEST, Verification, read_manifest
from megatron.checkpointing.places import is_local, place
from megatron.checkpointing.ranks import Ranks
from megatron.checkpointing.remote.ownership import take
from megatron.checkpointing.remote.publish import DEFAULT_CHUNK_BYTES, Upload, begin, publish, upload_file
from megatron.checkpointing.remote.reach import asking
from megatron.checkpointing.remote.retry import retried
from megatron.checkpointing.saving.temporaries import release
from megatron.errors import CheckpointError
from megatron.mpu.groups import Group


def upload_checkpoint(
    checkpoint: Path,
    destination: str,
    *,
    group: Group,
    chunk_bytes: int = DEFAULT_CHUNK_BYTES,
    verification: Verification = "fast",
) -> Path:
    """Copy a complete local checkpoint into the directory `destination`, a URL (all ranks of `group` call this); where it is then.

    The files are shared out among the ranks, retried, and looked at when they have arrived (`verification` as in `check_files`); then
    comes the manifest, then `latest`, if this is the one that the local `latest` names. Raises CheckpointError on every rank when any of
    them fails; what has arrived does not count then, and is deleted by the next upload.
    """
    how = Upload(chunk_bytes, verification)
    directory = place(destination)
    final = directory / checkpoint.name
    ranks = Ranks(group, doing=f"uploading {checkpoint} to {directory}")
    marks: list[Path] = []
    try:
        files = ranks.first(lambda: _begin(checkpoint, final, marks))
        mine = balanced({name: facts["size"] for name, facts in files.items()}, group.size)[group.rank]

        def upload() -> None:
            for name in mine:
                upload_file(checkpoint / name, final / name, files[name], how)

        ranks.every(upload)
        ranks.first(lambda: publish(final, marks[0], files, latest=_iteration_if_latest(checkpoint)))
    finally:
        for mark in marks:
            release(mark)
    return final


def is_uploaded(checkpoint: Path, destination: str) -> bool:
    """Whether all of a checkpoint was uploaded before: the manifest, which names every byte, comes last.

    Then `latest` is put right as well, without which an upload may have ended. Raises CheckpointError when the store does not answer.
    """
    directory = place(destination)
    with asking(directory):
        try:
            there = retried((directory / checkpoint.name / MANIFEST).read_bytes)
        except FileNotFoundError:
            return False
        if there != (checkpoint / MANIFEST).read_bytes():
            return False
        latest = _iteration_if_latest(checkpoint)
        if latest is not None and read_latest(directory) != latest:
            retried(lambda: write_latest(directory, latest))
    return True


def _iteration_if_latest(checkpoint: Path) -> int | None:
    """The iteration of the checkpoint that `latest` of its directory names; None of any other."""
    iteration = iteration_of(checkpoint)
    return iteration if read_latest(checkpoint.parent) == iteration else None


def _begin(checkpoint: Path, final: Path, marks: list[Path]) -> FileFacts:
    """The files to upload."""
    if is_local(final):
        raise CheckpointError(f"{final} is no URL: there is nothing to upload to")
    files = dict(read_manifest(checkpoint))
    with asking(final.parent):
        take(final.parent)
        marks.append(begin(final))
    return files
