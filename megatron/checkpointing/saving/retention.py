"""Which checkpoints `keep_last_n_checkpoints` lets go: a pure decision, and its execution."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from megatron.checkpointing.errors import DamagedCheckpoint, reason_of
from megatron.checkpointing.layout import list_checkpoints, read_latest
from megatron.checkpointing.loading.verify import verify
from megatron.checkpointing.manifest import Verification
from megatron.checkpointing.places import is_local, place
from megatron.checkpointing.ranks import Ranks
from megatron.checkpointing.remote.publish import remove_checkpoint
from megatron.checkpointing.saving.temporaries import discard
from megatron.log import get_logger
from megatron.mpu.groups import SINGLE, Group

logger = get_logger(__name__)


def superseded(
    complete: Collection[int], *, keep_last: int, latest: int | None, keep: Collection[int] = ()
) -> list[int]:
    """The iterations to delete, oldest first: all complete ones but the newest `keep_last`, the one `latest` names, and those of `keep`.

    At least one complete checkpoint always stays, whatever `keep_last` says.
    """
    newest_first = sorted(complete, reverse=True)
    return sorted(
        iteration for iteration in newest_first[max(keep_last, 1) :] if iteration != latest and iteration not in keep
    )


def prune_checkpoints(
    directory: str | Path,
    *,
    keep_last: int,
    group: Group = SINGLE,
    keep: Collection[int] = (),
    verification: Verification = "fast",
) -> list[Path]:
    """Delete what `keep_last` no longer covers (collective); the deleted directories, on the first rank of `group`, which deletes them.

    keep: iterations that must stay in any case, as those that are not uploaded yet. verification: "fast" takes a checkpoint for good when
    all files are there, have their sizes, and the small ones their hashes; with "full" nothing goes before the files of one that stays
    have been hashed, by all ranks together.

    Incomplete or damaged checkpoints neither count nor go. What cannot be read or deleted is a warning, not an error: the run goes on.
    """
    directory = place(directory)
    ranks = Ranks(group, doing=f"deleting checkpoints in {directory}")
    if verification == "full":
        kept, gone = ranks.first(lambda: _divide(directory, keep_last, keep))
        if gone and not any(_is_good(path, ranks) for path in kept):
            if group.rank == 0:
                names = ", ".join(path.name for path in kept)
                logger.warning(
                    "nothing is deleted in %s, as none of those that would stay is good: %s", directory, names
                )
            return []
    elif group.rank == 0:
        gone = _divide(directory, keep_last, keep)[1]
    return [path for path in gone if _discarded(path)] if group.rank == 0 else []


def _divide(directory: Path, keep_last: int, keep: Collection[int]) -> tuple[list[Path], list[Path]]:
    """(what stays, newest first; what goes, oldest first) of the complete checkpoints; nothing of a place that does not answer."""
    try:
        complete = {found.iteration: found.path for found in list_checkpoints(directory)}
        latest = read_latest(directory)
    except Exception as error:  # the libraries of stores have errors of their own
        logger.warning("nothing is deleted in %s, which cannot be read (%s)", directory, reason_of(error))
        return [], []
    gone = superseded(complete, keep_last=keep_last, latest=latest, keep=keep)
    return [complete[iteration] for iteration in reversed(complete) if iteration not in gone], [
        complete[each] for each in gone
    ]


def _is_good(checkpoint: Path, ranks: Ranks) -> bool:
    try:
        verify(checkpoint, "full", ranks)
    except DamagedCheckpoint as error:
        if ranks.group.rank == 0:
            logger.warning("%s", error)
        return False
    return True


def _discarded(checkpoint: Path) -> bool:
    try:
        if is_local(checkpoint):
            discard(checkpoint)
        else:
            remove_checkpoint(checkpoint)
    except Exception as error:  # the libraries of stores have errors of their own
        logger.warning("%s is no longer needed but cannot be deleted (%s)", checkpoint, error)
        return False
    return True
