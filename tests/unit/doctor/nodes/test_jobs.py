from __future__ import annotations

import os
from pathlib import Path

import pytest

from megatron.doctor.nodes import jobs
from megatron.doctor.nodes.jobs import CHILDREN, Clinic, reason_of
from megatron.launcher.base import Host, Job, Launcher
from megatron.launcher.head.outcome import Outcome
from megatron.launcher.launchers.local import LocalLauncher
from megatron.neox_arguments.keys.runner import RunnerArgs

HERE = [Host("localhost", (0, 1))]


@pytest.fixture
def clinic() -> Clinic:
    args = RunnerArgs(launcher="local", master_port=40404)
    return Clinic(args, LocalLauncher(args))


@pytest.mark.parametrize(
    "script", sorted(path.name for path in CHILDREN.glob("*.py") if "run_worker" in path.read_text())
)
def test_a_job_runs_a_child_where_a_run_would(clinic: Clinic, script: str) -> None:
    job = clinic.job(script, HERE, {"NEOX_X": "1"})
    assert Path(job.script).is_file()
    assert (job.directory, job.master_port, job.world_size) == (os.getcwd(), 40404, 2)
    assert job.environment["NEOX_X"] == "1"
    assert not job.max_restarts


@pytest.mark.parametrize(("status", "ends_in"), [(130, KeyboardInterrupt), (143, SystemExit), (129, SystemExit)])
def test_a_signal_that_asks_to_stop_ends_the_examination(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch, status: int, ends_in: type[BaseException]
) -> None:
    monkeypatch.setattr(jobs, "run_attempt", lambda *_, **__: Outcome(status))
    with pytest.raises(ends_in):
        clinic.run("surveyor.py", HERE, {})


def test_a_rank_that_was_killed_is_an_outcome(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(job: Job, launcher: Launcher, *, tries_ssh: bool) -> Outcome:
        return Outcome(137, "error: rank 1 was killed\n")

    monkeypatch.setattr(jobs, "run_attempt", killed)
    outcome = clinic.run("surveyor.py", HERE, {})
    assert reason_of(outcome) == "rank 1 was killed"


def test_a_job_that_says_nothing_is_told_by_its_status() -> None:
    assert reason_of(Outcome(3)) == "the job ended with status 3"
