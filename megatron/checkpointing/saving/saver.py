"""Writes one checkpoint after the other into a run's directory, uploads them and deletes old ones, at once or beside the training.

Beside the training, at most one save is on its way. What has been done is handed over as reports, since only the training thread may
show it; a failure is logged at once and raised when the save is waited for.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

from megatron.checkpointing.places import place
from megatron.checkpointing.remote.publish import Upload
from megatron.checkpointing.saving.background import Background
from megatron.checkpointing.saving.retention import prune_checkpoints
from megatron.checkpointing.saving.save import write_snapshot
from megatron.checkpointing.saving.snapshot import Snapshot
from megatron.checkpointing.saving.uploads import Uploads
from megatron.errors import CheckpointError
from megatron.log import get_logger
from megatron.mpu.groups import Group, build_saving_group
from megatron.neox_arguments.keys.checkpoints import CheckpointArgs

logger = get_logger(__name__)


@dataclass(frozen=True)
class Report:
    """Something that was done, in words and numbers. saved: the checkpoint that is complete now."""

    text: str
    values: Mapping[str, float]
    saved: Path | None = None


class Saver:
    """Saves for a run with these arguments, over the ranks of `world`. alive: called now and then while a save is waited for.

    Builds a process group for the background, if the arguments ask for one (collective).
    """

    def __init__(self, args: CheckpointArgs, *, world: Group, alive: Callable[[], None] = lambda: None) -> None:
        assert args.save is not None
        self.directory = place(args.save)
        self._keep_last = args.keep_last_n_checkpoints
        self._verification = args.verify_checkpoint
        self._how = Upload(args.s3_chunk_size, args.verify_checkpoint)
        self._world = world
        self._beside = build_saving_group(world) if args.async_save or args.s3_path else world
        self._uploads = Uploads(args, group=self._beside) if args.s3_path else None
        self._background = Background("saving", alive=alive)
        self._reports: SimpleQueue[Report] = SimpleQueue()

    def save(self, snapshot: Snapshot, *, began: float) -> None:
        """Write a snapshot; training, which has stood still since `began` (by `time.perf_counter`), goes on when it is written (collective).

        Raises CheckpointError on every rank when it cannot be.
        """
        path = write_snapshot(self.directory, snapshot, group=self._world, upload=self._how)
        seconds = time.perf_counter() - began
        self._tell(f"saved {path} in {seconds:.1f} s (training stood still)", path, seconds=seconds, stall=seconds)
        if self._uploads is None:
            self._prune()
        else:
            self._uploads.add(snapshot.iteration, path)
            self._start(self._upload_and_prune)

    def save_beside_training(self, snapshot: Snapshot, *, began: float) -> None:
        """Begin to write a snapshot of copies (collective)."""
        stall = time.perf_counter() - began
        self._start(lambda: self._save_in_background(snapshot, stall))

    def wait(self, *, seconds: float = float("inf")) -> None:
        """Wait until nothing is on its way any more, or for so long. Raises the CheckpointError of what has failed, on every rank."""
        self._background.wait(seconds=seconds)

    def finish(self) -> None:
        """Try once more to upload what could not be, and delete what is no longer needed (collective). Raises CheckpointError on every rank when it still cannot."""
        self.wait()
        if self._uploads is not None and self._uploads.waiting:
            self._start(self._upload_and_prune)
            self.wait()
            self._uploads.check()
        self._prune()  # not done yet if the run was killed in its last save, and is complete now

    @property
    def failed(self) -> bool:
        """Whether a save in the background has failed on this rank."""
        return self._background.failed

    def reports(self) -> Iterator[Report]:
        """What has been done since the last call."""
        with contextlib.suppress(Empty):
            while True:
                yield self._reports.get_nowait()

    def _start(self, action: Callable[[], None]) -> None:
        def loud() -> None:
            try:
                action()
            except CheckpointError as error:
                if self._beside.rank == 0:
                    logger.error("%s; the run stops, and earlier checkpoints are as they were", error)
                raise

        self._background.start(loud)

    def _save_in_background(self, snapshot: Snapshot, stall: float) -> None:
        began = time.perf_counter()
        path = write_snapshot(self.directory, snapshot, group=self._beside, upload=self._how)
        seconds = time.perf_counter() - began
        text = f"saved {path} in the background in {seconds:.1f} s (training stood still for {stall:.2f} s)"
        self._tell(text, path, seconds=seconds, stall=stall)
        if self._uploads is None:
            self._prune()
        else:
            self._uploads.add(snapshot.iteration, path)
            self._upload_and_prune()

    def _upload_and_prune(self) -> None:
        assert self._uploads is not None
        began = time.perf_counter()
        for there in self._uploads.upload():
            seconds = time.perf_counter() - began
            self._reports.put(Report(f"uploaded {there} in {seconds:.1f} s", {"checkpoint/upload_seconds": seconds}))
            began = time.perf_counter()
        self._prune()

    def _prune(self) -> None:
        if self._keep_last:
            keep = self._uploads.waiting if self._uploads is not None else ()
            prune_checkpoints(
                self.directory,
                keep_last=self._keep_last,
                group=self._beside,
                keep=keep,
                verification=self._verification,
            )

    def _tell(self, text: str, path: Path, *, seconds: float, stall: float) -> None:
        self._reports.put(Report(text, {"checkpoint/seconds": seconds, "checkpoint/stall_seconds": stall}, path))
