"""Brings the checkpoints of a run to a second place (`s3_path`), and remembers those that are not there yet, so that none is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from megatron.checkpointing.errors import DamagedCheckpoint
from megatron.checkpointing.layout import list_checkpoints
from megatron.checkpointing.places import place
from megatron.checkpointing.ranks import Ranks
from megatron.checkpointing.remote.upload import is_uploaded, upload_checkpoint
from megatron.checkpointing.remote.write import check_can_upload
from megatron.errors import CheckpointError
from megatron.log import get_logger
from megatron.mpu.groups import Group
from megatron.neox_arguments.keys.checkpoints import CheckpointArgs

logger = get_logger(__name__)


class Uploads:
    """The checkpoints in `save` that may still be lacking in `s3_path`; the same on all ranks of `group`, which build it together.

    Those that lie there at the start count, too: the run before may have ended in the middle of an upload.
    """

    def __init__(self, args: CheckpointArgs, *, group: Group) -> None:
        assert args.save is not None
        assert args.s3_path is not None
        self._args = args
        self._destination = args.s3_path
        self._group = group
        self._reason = ""
        directory = place(args.save)
        ranks = Ranks(group, doing=f"looking for checkpoints in {directory}")
        self._waiting = {found.iteration: found.path for found in ranks.first(lambda: list_checkpoints(directory))}
        if group.rank == 0:
            try:
                check_can_upload(place(args.s3_path))
            except CheckpointError as error:
                logger.warning("%s; until it can be, checkpoints stay in %s", error, directory)

    @property
    def waiting(self) -> frozenset[int]:
        """The iterations of what has still to be uploaded, and must not be deleted."""
        return frozenset(self._waiting)

    def add(self, iteration: int, checkpoint: Path) -> None:
        """A checkpoint was saved."""
        self._waiting[iteration] = checkpoint

    def upload(self) -> Iterator[Path]:
        """Upload what is waiting, the newest first, over all ranks of the group; each when it is there, if it was not before.

        What cannot be uploaded is a warning, and goes on waiting; so do those behind it, unless it was itself the reason: training
        would stand still at the next save while a store that is away is asked for each of them.
        """
        for iteration in sorted(self._waiting, reverse=True):
            checkpoint = self._waiting[iteration]
            try:
                there = None if self._is_there(checkpoint) else self._upload(checkpoint)
            except CheckpointError as error:
                self._reason = str(error)
                if self._group.rank == 0:
                    logger.warning("%s; it stays in %s, and is tried again after the next save", error, checkpoint)
                if not isinstance(error, DamagedCheckpoint):
                    return
            else:
                del self._waiting[iteration]
                if there is not None:
                    yield there

    def check(self) -> None:
        """Raises CheckpointError when something is still waiting."""
        if self._waiting:
            names = ", ".join(self._waiting[iteration].name for iteration in sorted(self._waiting))
            raise CheckpointError(
                f"not uploaded to {self._destination}: {names} ({self._reason}); all of it is in "
                f"{next(iter(self._waiting.values())).parent}, and the same command uploads it"
            )

    def _upload(self, checkpoint: Path) -> Path:
        return upload_checkpoint(
            checkpoint,
            self._destination,
            group=self._group,
            chunk_bytes=self._args.s3_chunk_size,
            verification=self._args.verify_checkpoint,
        )

    def _is_there(self, checkpoint: Path) -> bool:
        ranks = Ranks(self._group, doing=f"comparing {checkpoint} with {self._destination}")
        return ranks.first(lambda: is_uploaded(checkpoint, self._destination))
