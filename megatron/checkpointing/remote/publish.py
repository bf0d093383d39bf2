"""A checkpoint in a store: what is there before its manifest does not count, so the manifest is written last and deleted first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from megatron.checkpointing.errors import DamagedCheckpoint
from megatron.checkpointing.files import TEMPORARY_PREFIX, FileFacts, temporary_path
from megatron.checkpointing.layout import existing_checkpoints, write_latest
from megatron.checkpointing.manifest import (
    MANIFEST,
    Verification,
    check_file,
    is_hashed_when_full,
    manifest_content,
    read_manifest,
)
from megatron.checkpointing.remote.objects import object_of
from megatron.checkpointing.remote.ownership import check_still_ours
from megatron.checkpointing.remote.retry import retried
from megatron.checkpointing.saving.temporaries import IDLE_SECONDS, claim, maker_is_gone

DEFAULT_CHUNK_BYTES = 100 << 20


@dataclass(frozen=True)
class Upload:
    """How files are uploaded. chunk_bytes: of a part; verification: how closely they are looked at afterwards, as in `check_files`."""

    chunk_bytes: int = DEFAULT_CHUNK_BYTES
    verification: Verification = "fast"


def begin(final: Path) -> Path:
    """Make room for a checkpoint: delete what dead runs left half uploaded, and an earlier one of its name. The mark that it is being uploaded."""
    check_still_ours(final.parent)
    for found in existing_checkpoints(final.parent):
        if found.path != final and _is_abandoned(found.path):
            remove_checkpoint(found.path)
    remove_checkpoint(final)
    mark = claim(temporary_path(final, "upload"))
    retried(lambda: object_of(mark).write(b""))
    return mark


def upload_file(source: Path, target: Path, facts: dict[str, object], how: Upload) -> None:
    """Copy a local file into the store and look at what arrived. Raises DamagedCheckpoint when that is something else."""
    retried(lambda: object_of(target).upload(source, chunk_bytes=how.chunk_bytes))
    check_arrived(target, facts, how)


def upload_content(content: bytes, target: Path, facts: dict[str, object], how: Upload) -> None:
    """Write a small file into the store and look at what arrived. Raises DamagedCheckpoint when that is something else."""
    retried(lambda: object_of(target).write(content))
    check_arrived(target, facts, how)


def check_arrived(target: Path, facts: dict[str, object], how: Upload) -> None:
    """Look at an uploaded file: its size; its SHA-256 where it is small, or with verification "full". Raises DamagedCheckpoint."""
    hashed = how.verification == "full" or not is_hashed_when_full(target.name)
    retried(lambda: check_file(target, facts, hashed=hashed))


def publish(final: Path, mark: Path, files: FileFacts, *, latest: int | None) -> None:
    """Write the manifest of a checkpoint whose files have all arrived; then point `latest` of its directory at an iteration, if one is given."""
    check_still_ours(final.parent)
    retried(lambda: object_of(final / MANIFEST).write(manifest_content(files)))
    if dict(read_manifest(final)) != files:
        raise DamagedCheckpoint(f"{final / MANIFEST} is not what was written")
    if latest is not None:
        retried(lambda: write_latest(final.parent, latest))
    retried(object_of(mark).remove)


def remove_checkpoint(checkpoint: Path) -> None:
    """Delete a checkpoint, complete or not, so that it is never taken for a complete one."""
    retried(object_of(checkpoint / MANIFEST).remove)
    retried(object_of(checkpoint).remove_tree)


def _is_abandoned(checkpoint: Path) -> bool:
    """Whether this is not complete and nobody is at work on it: who uploaded it is gone, or nothing has come for an hour."""
    if (checkpoint / MANIFEST).exists():
        return False
    entries = list(checkpoint.iterdir())
    if any(path.name.startswith(TEMPORARY_PREFIX) and maker_is_gone(path) for path in entries):
        return True
    age = min((object_of(path).age_seconds() for path in entries if not path.is_dir()), default=0.0)
    return age > IDLE_SECONDS
