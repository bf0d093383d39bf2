"""One run at a time saves into a store, which has no locks: the run that started last, and earlier ones stop when they notice.

Each writes who it is at the start, and looks before it changes anything whether that is still there. So a run that is started again gets
in at once, and of two that were started by mistake the second goes on.
"""

from __future__ import annotations

from pathlib import Path

from megatron.checkpointing.remote.objects import object_of
from megatron.checkpointing.remote.retry import retried
from megatron.checkpointing.saving.owner import Owner
from megatron.errors import CheckpointError

OWNER = ".owner.json"

_mine: dict[str, Owner] = {}
"""Who this process said it is, by the directory."""


def take(directory: Path) -> None:
    """Say in a directory that this process saves there from now on; once is enough."""
    if str(directory) not in _mine:
        owner = Owner.this_process()
        retried(lambda: object_of(directory / OWNER).write(owner.content()))
        _mine[str(directory)] = owner


def check_still_ours(directory: Path) -> None:
    """Raise CheckpointError when another run has said since that it saves there. Nothing is checked where this process has not."""
    mine = _mine.get(str(directory))
    if mine is None:
        return
    try:
        there = Owner.read(retried((directory / OWNER).read_bytes))
    except FileNotFoundError:
        return
    if there is not None and there != mine:
        raise CheckpointError(
            f"another run saves into {directory} now: {there}. This one ({mine}) saves no more there; stop one of the two, or "
            "give each a directory of its own"
        )
