"""Which checkpoints `keep_last_n_checkpoints` lets go: a pure decision, and its execution."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from megatron.checkpointing.layout import list_checkpoints, read_latest
from megatron.checkpointing.temporaries import discard
from megatron.log import get_logger
from megatron.mpu.groups import SINGLE, Group

logger = get_logger(__name__)


def superseded(complete: Collection[int], *, keep_last: int, latest: int | None) -> list[int]:
    """The iterations to delete, oldest first: all complete ones but the newest `keep_last` and the one `latest` names.

    At least one complete checkpoint always stays, whatever `keep_last` says.
    """
    newest_first = sorted(complete, reverse=True)
    return sorted(iteration for iteration in newest_first[max(keep_last, 1) :] if iteration != latest)


def prune_checkpoints(directory: str | Path, *, keep_last: int, group: Group = SINGLE) -> list[Path]:
    """Delete what `keep_last` no longer covers, on the first rank of `group`; the deleted directories.

    Incomplete or damaged checkpoints neither count nor go. What cannot be deleted is a warning, not an error: the run goes on.
    """
    if group.rank != 0:
        return []
    directory = Path(directory)
    complete = {found.iteration: found.path for found in list_checkpoints(directory)}
    deleted = []
    for iteration in superseded(complete, keep_last=keep_last, latest=read_latest(directory)):
        try:
            discard(complete[iteration])
        except OSError as error:
            logger.warning("%s is no longer needed but cannot be deleted (%s)", complete[iteration], error)
        else:
            deleted.append(complete[iteration])
    return deleted
