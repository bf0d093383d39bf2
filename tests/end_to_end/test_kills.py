"""Runs of four processes, started by `deepy.py`, are killed by SIGKILL at twenty random moments (`make nightly`, `pytest -s` shows the tables).

With the launcher, all at once, and each time started again by the same command; or one rank alone, which `max_restarts` mends.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.distributed.kills.result import Result, check_same, newest, result_of, resumed_from, seeded
from tests.distributed.kills.table import Kill, table
from tests.end_to_end.runs import ON_CPU, deepy_command, run_deepy, write_config

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(3600)]

KILLS = int(os.environ.get("KILLS", "20"))
SAVED_EVERY = 3
STEPS_OF_A_LAUNCH = 8
PATIENCE_SECONDS = 30.0
LONGEST_SECONDS = 300.0
TOKEN = "KILLS_TEST_RUN"
"""A variable by whose value every process of a run is found, whatever its parents are by then."""
SETTINGS = {
    "num_gpus": 4,
    "train_iters": 8 * KILLS + STEPS_OF_A_LAUNCH,
    "checkpoint_factor": SAVED_EVERY,
    "keep_last_n_checkpoints": 2,
    "hidden_dropout": 0.1,
    "attention_dropout": 0.1,
    "eval_interval": 10,
    "eval_iters": 1,
    "num_workers": 1,
}
LAYOUTS = {
    "tensor_x_pipeline": {"model_parallel_size": 2, "pipe_parallel_size": 2, "gradient_accumulation_steps": 2},
    "tensor_x_zero": {"model_parallel_size": 2, "zero_optimization": {"stage": 2}, "async_save": True},
}


class Run:
    """One start of `deepy.py` in `directory`, whose log is beside it."""

    def __init__(self, directory: Path, data: Path, **changes: Any) -> None:
        self.directory = directory
        self.token = secrets.token_hex(8)
        self._lines = lines_of(directory)
        self._output = directory.parent / f"{self.token}.txt"
        config = write_config(directory, data, log_dir=str(directory), **SETTINGS | changes)
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                deepy_command("train.py", config),
                cwd=REPOSITORY,
                env={**ON_CPU, TOKEN: self.token},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started = time.monotonic()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill([])  # of a test that failed

    @property
    def steps(self) -> int:
        """Lines of metrics that it has written."""
        return lines_of(self.directory) - self._lines

    def living(self) -> dict[int, dict[str, str]]:
        """The environment of every process of this run that lives, by process id."""
        found = {}
        for path in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                entries = (path / "environ").read_text(errors="replace").split("\0") if path.name.isdigit() else []
                if f"{TOKEN}={self.token}" in entries:
                    found[int(path.name)] = dict(entry.split("=", 1) for entry in entries if "=" in entry)
        return found

    def ranks(self) -> dict[int, int]:
        """The process id of each rank: the oldest of the processes that say they are it."""
        found: dict[int, int] = {}
        for process, variables in sorted(self.living().items()):
            if "RANK" in variables:
                found.setdefault(int(variables["RANK"]), process)
        return found

    def kill(self, processes: Iterable[int]) -> None:
        """SIGKILL to these processes of the run, found a moment ago, and to any that have come since, until nothing is left."""
        for each in (processes, self.living()):
            for process in each:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        self.gone()

    def gone(self) -> None:
        """Wait until no process of it is left."""
        since = time.monotonic()
        while alive := self.living():
            assert time.monotonic() - since < PATIENCE_SECONDS, f"still there: {alive}"
            time.sleep(0.05)
        self.process.wait()

    def wait_until(self, happened: Callable[[], bool]) -> None:
        """Wait for something while the run goes on. Fails when the run ends before, or it takes too long."""
        deadline = time.monotonic() + LONGEST_SECONDS
        while not happened():
            assert self.process.poll() is None, f"ended before it was killed:\n{self.printed()}"
            assert time.monotonic() < deadline, "nothing happens any more"
            time.sleep(0.001)

    def printed(self) -> str:
        """What it has said."""
        return self._output.read_text(errors="replace")


def lines_of(directory: Path) -> int:
    metrics = directory / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


def trained(directory: Path, data: Path, **changes: Any) -> float:
    """Train in a new directory without a disturbance; the seconds it takes."""
    began = time.monotonic()
    config = write_config(directory, data, log_dir=str(directory), **SETTINGS | changes)
    run = run_deepy(directory, "train.py", config, timeout=LONGEST_SECONDS)
    assert run.exit_code == 0, run.printed
    return time.monotonic() - began


def killed(directory: Path, data: Path, number: int, dice: random.Random, start_seconds: float, **changes: Any) -> Kill:
    """Start the run and kill all of it: at any moment of its start, of the steps it makes then, or of a save."""
    before = newest(directory)
    with Run(directory, data, **changes) as run:
        steps, moment = dice.randint(1, STEPS_OF_A_LAUNCH), dice.random()
        where = dice.choices(["start", "steps", "save"], [0.25, 0.35, 0.4])[0]
        if where == "start":
            run.wait_until(lambda: time.monotonic() - run.started > moment * start_seconds)
            when = f"{moment * start_seconds:.1f} s after the start"
        else:
            run.wait_until(lambda: run.steps >= steps)
            when = f"{moment / 4:.3f} s after step {steps}"
        if where == "steps":
            time.sleep(moment / 4)
        processes = [run.process.pid, *run.living()]
        if where == "save":
            run.wait_until(lambda: bool(unfinished(directory)))
            time.sleep(moment / 30)
            when = f"{moment / 30:.3f} s into a save"
        doing = half_done(directory)
        run.kill(processes)
    assert newest(directory) >= before
    return Kill(number, when, doing, resumed_from(run.printed()), 0.0, time.monotonic() - run.started)


def unfinished(directory: Path) -> list[str]:
    """What shows that checkpoints are being written, replaced or deleted."""
    checkpoints = directory / "checkpoints"
    return sorted(path.name for path in checkpoints.glob(".[tr]*")) if checkpoints.is_dir() else []


def half_done(directory: Path) -> str:
    """That in words, for the table."""
    return ", ".join(name.partition("@")[0] for name in unfinished(directory)) or "-"


@pytest.fixture(scope="module", params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(LAYOUTS[request.param])


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, small_data: Path, layout: dict[str, Any]
) -> tuple[Result, float]:
    """The run that nothing disturbs, and the seconds that one of a step takes."""
    directory = tmp_path_factory.mktemp("uninterrupted")
    trained(directory / "run", small_data, **layout)
    return result_of(directory / "run"), trained(directory / "step", small_data, **{**layout, "train_iters": 1})


def test_a_run_killed_twenty_times_ends_as_one_that_never_was(
    tmp_path: Path, small_data: Path, layout: dict[str, Any], uninterrupted: tuple[Result, float]
) -> None:
    expected, start_seconds = uninterrupted
    dice, kills = seeded(), []
    try:
        for number in range(1, KILLS + 1):
            kills.append(killed(tmp_path / "run", small_data, number, dice, start_seconds, **layout))
    finally:
        print(table(kills))
    trained(tmp_path / "run", small_data, **layout)
    check_same(result_of(tmp_path / "run"), expected)


def test_a_run_that_loses_a_rank_again_and_again_mends_itself(
    tmp_path: Path, small_data: Path, layout: dict[str, Any], uninterrupted: tuple[Result, float]
) -> None:
    """One start of `deepy.py`, with `max_restarts`."""
    expected, start_seconds = uninterrupted
    dice, kills = seeded(), []
    with Run(tmp_path / "run", small_data, **layout, max_restarts=KILLS) as run:
        try:
            for number in range(1, KILLS + 1):
                kills.append(one_rank_killed(run, number, dice, start_seconds))
        finally:
            print(table(kills))
        assert run.process.wait(LONGEST_SECONDS) == 0, run.printed()
        run.gone()
    check_same(result_of(tmp_path / "run"), expected)


def one_rank_killed(run: Run, number: int, dice: random.Random, start_seconds: float) -> Kill:
    """Kill a rank while it starts or trains, and wait until the launcher has ended the others."""
    began, lines = time.monotonic(), run.steps
    steps, victim, moment = dice.randint(1, STEPS_OF_A_LAUNCH), dice.randrange(4), dice.random()
    if dice.random() < 0.3:
        run.wait_until(lambda: len(run.ranks()) == 4)
        time.sleep(moment * start_seconds)
        when = f"{moment * start_seconds:.1f} s after the start"
    else:
        run.wait_until(lambda: run.steps >= lines + steps)
        time.sleep(moment / 4)
        when = f"{moment / 4:.3f} s after step {steps}"
    ranks, doing = run.ranks(), half_done(run.directory)
    os.kill(ranks[victim], signal.SIGKILL)
    killed_at = time.monotonic()
    run.wait_until(lambda: not run.living().keys() & set(ranks.values()))
    now = time.monotonic()
    return Kill(number, f"{when}, rank {victim} alone", doing, None, now - killed_at, now - began)
