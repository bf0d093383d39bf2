"""A run that is killed or stopped goes on as if nothing had happened."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from megatron.checkpointing.digest import logical_sha256
from tests.end_to_end.forked import train_forked
from tests.end_to_end.runs import TrainedRun, run_deepy, start_deepy, write_config

ITERATIONS = 40
SETTINGS = {
    "train_iters": ITERATIONS,
    "num_gpus": 2,
    "checkpoint_factor": 3,
    "keep_last_n_checkpoints": 2,
    "hidden_dropout": 0.1,
    "attention_dropout": 0.1,
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, small_data: Path) -> TrainedRun:
    return train_forked(tmp_path_factory.mktemp("uninterrupted") / "run", small_data, **SETTINGS)


def wait_for_iteration(directory: Path, iteration: int, process: subprocess.Popen[str]) -> None:
    metrics = directory / "logs" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and f'"iteration": {iteration},' in metrics.read_text()):
        assert process.poll() is None, process.stdout and process.stdout.read()
        assert time.monotonic() < deadline, f"iteration {iteration} was never reached"
        time.sleep(0.01)


def descendants(pid: int) -> list[int]:
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    direct = [int(word) for word in children.stdout.split()]
    return [*direct, *(each for child in direct for each in descendants(child))]


def process_of_rank(ancestor: int, rank: int) -> int:
    """The process that runs a rank of the run that `ancestor` started."""
    wanted = f"RANK={rank}".encode()
    return next(
        pid for pid in descendants(ancestor) if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    )


def test_a_killed_run_that_saves_beside_training_continues_with_the_same_losses_and_state_to_the_bit(
    tmp_path: Path, small_data: Path, uninterrupted: TrainedRun
) -> None:
    config = write_config(tmp_path / "run", small_data, **SETTINGS, async_save=True)
    process = start_deepy("train.py", config)
    # The second save, after iteration 6, has waited for the first.
    wait_for_iteration(tmp_path / "run", random.randint(7, ITERATIONS // 2), process)
    for pid in [process.pid, *descendants(process.pid)]:
        with contextlib.suppress(ProcessLookupError):  # a rank dies by itself once another is gone
            os.kill(pid, signal.SIGKILL)
    process.wait()

    resumed = run_deepy(tmp_path / "run", "train.py", config)
    assert resumed.exit_code == 0, resumed.printed
    assert "continuing after iteration" in resumed.printed
    assert resumed.losses == uninterrupted.losses
    for name in ("global_step39", "global_step40"):
        ours, theirs = (run.directory / "checkpoints" / name for run in (resumed, uninterrupted))
        assert logical_sha256(ours) == logical_sha256(theirs)
        took = r"in the background in \d+\.\d s \(training stood still for \d+\.\d\d s\)"
        assert re.search(rf"saved \S+/{name} {took}", resumed.printed)
    assert '"checkpoint/stall_seconds": 0.' in (resumed.directory / "logs" / "metrics.jsonl").read_text()


def test_a_killed_rank_is_started_again_and_the_losses_are_the_same_to_the_bit(
    tmp_path: Path, small_data: Path, uninterrupted: TrainedRun
) -> None:
    """Without `load`: the second attempt goes on from `save` all the same."""
    changes = {"load": None, "load_if_exists": False, "max_restarts": 2}
    config = write_config(tmp_path / "run", small_data, **SETTINGS, **changes)
    process = start_deepy("train.py", config)
    wait_for_iteration(tmp_path / "run", 10, process)
    family = [process.pid, *descendants(process.pid)]
    os.kill(process_of_rank(process.pid, 1), signal.SIGKILL)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0, printed
    assert "restart 1 of 2" in printed
    restarted = TrainedRun(tmp_path / "run", 0, printed)
    went_on = int(printed.split("continuing after iteration ")[1].split()[0])
    assert went_on % 3 == 0
    assert went_on >= 6
    assert restarted.losses == uninterrupted.losses
    assert not any(Path(f"/proc/{pid}").exists() for pid in family)


def test_sigusr1_to_one_rank_saves_and_exits_and_the_next_run_goes_on(
    tmp_path: Path, small_data: Path, uninterrupted: TrainedRun
) -> None:
    config = write_config(tmp_path / "run", small_data, **SETTINGS)
    process = start_deepy("train.py", config)
    wait_for_iteration(tmp_path / "run", 5, process)
    os.kill(process_of_rank(process.pid, 1), signal.SIGUSR1)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 75, printed
    assert "stopped (exit status 75): what was done is saved; the same command goes on" in printed
    stopped_after = len(TrainedRun(tmp_path / "run", 0, printed).losses)
    assert stopped_after < ITERATIONS
    assert f"global_step{stopped_after}" in printed

    resumed = run_deepy(tmp_path / "run", "train.py", config)
    assert f"continuing after iteration {stopped_after}" in resumed.printed
    assert resumed.losses == uninterrupted.losses


def test_a_complete_run_says_so_and_changes_nothing(uninterrupted: TrainedRun) -> None:
    before = sorted(path.name for path in (uninterrupted.directory / "checkpoints").iterdir())
    again = run_deepy(uninterrupted.directory, "train.py", uninterrupted.directory / "config.yml")
    assert again.exit_code == 0
    assert "this run is complete" in again.printed
    assert sorted(path.name for path in (uninterrupted.directory / "checkpoints").iterdir()) == before
    assert "global_step40" in before
    assert len([name for name in before if name.startswith("global_step")]) == 2
