"""Starts a training run as forked ranks, kills it at a given moment, and tells what became of each rank.

The ranks run `pretrain` as `train.py` does and find each other as started ones do, always at the same port. Forking saves the seconds
that importing takes, so that a run can be killed twenty times within a minute.
"""

from __future__ import annotations

import contextlib
import mmap
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from megatron.neox_arguments import NeoXArgs
from megatron.training.pretrain import pretrain
from tests import deepspeed_world  # noqa: F401  prepares torch and DeepSpeed for forked ranks
from tests.distributed.kills.moments import PLACES, TIME, Moment
from tests.file_changes import SYNCHRONISE, Change, watch_changes

PATIENCE_SECONDS = 30.0
"""How long a rank may need to notice that another one is gone, on a busy machine; without noticing it would wait for ten minutes."""
LONGEST_SECONDS = 120.0
NOTE_BYTES = 256
MOST_RANKS = 2


@dataclass(frozen=True)
class Ended:
    """What became of a launch. codes: exit codes by rank, -9 of one that was killed; doing: what the first rank did last to the directory.

    survived_seconds: how long the longest of the others lived after a rank was killed alone.
    """

    codes: list[int]
    printed: str
    doing: str
    seconds: float
    survived_seconds: float


@dataclass
class Launch:
    """One start of the run. port: where rank 0 waits for the others; printed: folder of what the ranks print."""

    config: Mapping[str, Any]
    port: int
    printed: Path
    moment: Moment | None = None
    _ranks: list[Any] = field(default_factory=list)
    _pids: Any = field(default_factory=lambda: multiprocessing.RawArray("i", MOST_RANKS))
    _notes: mmap.mmap = field(default_factory=lambda: mmap.mmap(-1, NOTE_BYTES))

    def run(self) -> Ended:
        """Start, kill at the moment if it comes, and wait until every rank has ended. One that does not end fails the test."""
        context = multiprocessing.get_context("fork")
        self.printed.mkdir(parents=True)
        started = time.monotonic()
        for rank in range(int(self.config["global_num_gpus"])):
            process = context.Process(target=self._rank_main, args=(rank,))
            process.start()
            self._pids[rank] = process.pid
            self._ranks.append(process)
        try:
            self._wait_for_moment(started)
            first_end = self._wait_until(
                lambda: any(rank.exitcode is not None for rank in self._ranks), LONGEST_SECONDS
            )
            last_end = self._wait_until(
                lambda: all(rank.exitcode is not None for rank in self._ranks), PATIENCE_SECONDS
            )
        finally:
            for rank in self._ranks:
                rank.kill()
                rank.join()
        texts = [path.read_text(errors="replace") for path in sorted(self.printed.iterdir())]
        doing = self._notes[:NOTE_BYTES].rstrip(b"\0").decode()
        return Ended(
            [rank.exitcode for rank in self._ranks], "".join(texts), doing, last_end - started, last_end - first_end
        )

    def _wait_for_moment(self, started: float) -> None:
        moment = self.moment
        if moment is None or moment.place in PLACES:
            return  # a rank kills itself, or nobody does
        lines = self._lines()
        while all(rank.is_alive() for rank in self._ranks):
            if moment.place == TIME and time.monotonic() - started >= moment.seconds:
                break
            if self._lines() - lines >= moment.number:
                break
            time.sleep(0.001)
        for rank, process in enumerate(self._ranks):
            if rank == moment.rank or not moment.alone:
                process.kill()

    def _lines(self) -> int:
        metrics = Path(self.config["log_dir"]) / "metrics.jsonl"
        return metrics.read_bytes().count(b"\n") if metrics.exists() else 0

    def _wait_until(self, ended: Any, seconds: float) -> float:
        deadline = time.monotonic() + seconds
        while not ended():
            if time.monotonic() > deadline:
                alive = [rank for rank, process in enumerate(self._ranks) if process.is_alive()]
                texts = [path.read_text(errors="replace") for path in sorted(self.printed.iterdir())]
                raise AssertionError(
                    f"after {seconds:.0f} s ranks {alive} have not ended; {self.moment}\n{''.join(texts)}"
                )
            time.sleep(0.002)
        return time.monotonic()

    def _rank_main(self, rank: int) -> None:
        descriptor = os.open(self.printed / f"rank{rank}.txt", os.O_WRONLY | os.O_CREAT)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        size = str(self.config["global_num_gpus"])
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=size, LOCAL_WORLD_SIZE=size)
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(self.port))
        torch.set_num_threads(1)
        self._arm(rank)
        pretrain(NeoXArgs.from_dict(self.config))

    def _arm(self, rank: int) -> None:
        """Note what the first rank does to the directory of checkpoints, and die at a place that is this rank's."""
        moment, directory, left = (
            self.moment,
            Path(self.config["save"]),
            [0 if self.moment is None else self.moment.number],
        )

        def see(change: Change) -> None:
            if not change.inside(directory):
                return
            if rank == 0:
                self._notes[:NOTE_BYTES] = str(change).encode()[:NOTE_BYTES].ljust(NOTE_BYTES, b"\0")
            if moment is None or moment.rank != rank or not PLACES.get(moment.place, _nowhere)(change):
                return
            left[0] -= 1
            if left[0] == 0:
                _die(change, [] if moment.alone else [pid for pid in self._pids if pid not in (0, os.getpid())])

        watch_changes(see)


def _die(change: Change, others: Sequence[int]) -> None:
    """Kill this process and the others before a change is made, with half of what is being written on the disk."""
    if change.kind == SYNCHRONISE:
        os.truncate(change.path, change.path.stat().st_size // 2)
    for process in (*others, os.getpid()):
        with contextlib.suppress(ProcessLookupError):  # one that had nothing left to do
            os.kill(process, signal.SIGKILL)


def _nowhere(change: Change) -> bool:
    return False


def free_port() -> int:
    """A port that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
