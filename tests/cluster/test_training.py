"""Training on two hosts is training on one: with every launcher, over restarts, and when a host is lost in the middle of a collective."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.blocks import blocks
from tests.cluster.damage import kill_a_rank
from tests.cluster.launches import SESSIONS
from tests.cluster.patience import wait_until
from tests.cluster.table import TRAIN, Measured, Seconds
from tests.cluster.ways import HOSTFILE, NODE_TIMEOUT, Way
from tests.end_to_end.forked import train_forked
from tests.end_to_end.runs import SMALL

pytestmark = pytest.mark.cluster

STEPS, LONG = 5, 60
TRAINING = {"lr_decay_iters": LONG, "eval_iters": 0, "checkpoint_factor": 10}
PLACES = {"log_dir": "logs", "save": "checkpoints", "load": "checkpoints", "load_if_exists": True}


@pytest.fixture(scope="module")
def config(small_data: Path) -> dict[str, Any]:
    """A training of two data-parallel ranks, one on each host."""
    return SMALL | PLACES | TRAINING | {"data_path": str(small_data), "train_iters": LONG, "num_gpus": 1}


@pytest.fixture(scope="module")
def losses(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Of the same training in two processes of one host."""
    directory = tmp_path_factory.mktemp("local") / "run"
    return train_forked(directory, small_data, **TRAINING, train_iters=LONG, num_gpus=2).losses


def losses_in(directory: Path) -> list[float]:
    """The training losses that a job has written so far; of steps trained twice, the later."""
    file = directory / "logs" / "metrics.jsonl"
    lines = file.read_text().split("\n")[:-1] if file.exists() else ()  # the last one may be half written
    records = map(json.loads, lines)
    return [loss for _, loss in sorted({each["iteration"]: each["loss"] for each in records if "loss" in each}.items())]


@pytest.mark.parametrize("launcher", blocks())
def test_two_hosts_train_as_one_does(
    launcher: str,
    ways: Callable[[str], Way],
    tmp_path: Path,
    config: dict[str, Any],
    losses: list[float],
    measured: Measured,
) -> None:
    with ways(launcher).start(tmp_path / "run", config | {"train_iters": STEPS}) as job:
        status = job.finish(120)
        returned = time.monotonic() - job.begin
        assert status == 0, job.said()
        job.seconds_until_nothing_is_left()
        measured[launcher, TRAIN] = Seconds(returned, time.monotonic() - job.begin)
        assert losses_in(job.directory) == losses[:STEPS]
        logs = {file.name for file in (job.directory / "logs").glob("rank_*.log")}
        assert launcher == "torchrun-alone" or logs == {"rank_0.log", "rank_1.log"}


def test_it_goes_on_after_a_killed_rank_with_a_spare_for_a_lost_host_and_at_last_with_fewer(
    ways: Callable[[str], Way], tmp_path: Path, config: dict[str, Any], losses: list[float]
) -> None:
    way = ways("pdsh")
    words = {"max_restarts": 3, "elastic": True, "num_nodes": 2, "node_timeout": NODE_TIMEOUT}
    with way.start(tmp_path / "run", config | words, hostfile=HOSTFILE + "h3 slots=1\n") as job:

        def wait_for_losses(count: int) -> None:
            wait_until(lambda: len(losses_in(job.directory)) > count or not job.running(), 100, what="losses")
            assert job.running(), job.said()

        wait_for_losses(12)
        kill_a_rank(job)
        wait_for_losses(25)
        with contextlib.ExitStack() as mending:
            for name, count in (("h2", 38), ("h3", LONG)):
                mending.callback(way.hosts.link, name, "up")
                way.hosts.link(name, "down")
                if count < LONG:
                    wait_for_losses(count)
                    by_two = len(losses_in(job.directory))
            assert job.finish(90) == 0, job.said()
            job.seconds_until_nothing_is_left(but=SESSIONS)
        killed, lost, lost_again = job.errors
        assert "rank 1 on h2" in killed
        assert "h2" in lost
        assert "h3" in lost_again
        # Two ranks give the same bits on whatever hosts; one that makes their steps alone adds in another order.
        assert losses_in(job.directory)[:by_two] == losses[:by_two]
        assert losses_in(job.directory) == pytest.approx(losses, rel=1e-5)
