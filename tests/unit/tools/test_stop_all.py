"""tools/bash/stop_all.sh stops the processes of a job, politely or not, on every host, and no others."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.tools.fake_job import FakeJob, fake_ssh, run_tool, wait_for

STOP = "stop_all.sh"


@pytest.fixture
def job(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[FakeJob]:
    """A job in tmp_path/job; parameter: whether its rank is deaf."""
    running = FakeJob(tmp_path / "job", deaf=getattr(request, "param", False))
    try:
        yield running
    finally:
        running.end()


def test_runs_save_and_stop(job: FakeJob) -> None:
    done = run_tool(STOP, "-d", job.directory)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.fullmatch(r"localhost: stopped 1 deepy.py, 1 agents, 1 processes of ranks in \d+ s\n", done.stdout), (
        done.stdout
    )
    assert job.saved
    assert job.statuses() == [75, 75]


@pytest.mark.parametrize("job", [True], indirect=True)
def test_what_does_not_answer_is_told_and_killed_only_when_asked(job: FakeJob) -> None:
    done = run_tool(STOP, "-d", job.directory, "-g", 1)
    assert done.returncode == 1
    assert "there are still 0 deepy.py, 1 agents, 1 processes of ranks" in done.stdout
    assert job.statuses() == [75, None]
    done = run_tool(STOP, "-d", job.directory, "--now")
    assert done.returncode == 0
    assert "localhost: killed 0 deepy.py, 1 agents, 1 processes of ranks" in done.stdout
    assert not job.saved
    assert job.statuses() == [75, -9]


@pytest.mark.parametrize("job", [True], indirect=True)
def test_time_to_save_can_be_given_before_killing(job: FakeJob) -> None:
    done = run_tool(STOP, "-d", job.directory, "-g", 1, "--now")
    assert done.returncode == 0
    assert "killed 1 deepy.py, 1 agents, 1 processes of ranks in 1 s" in done.stdout
    assert job.statuses() == [75, -9]


def test_ranks_without_an_agent_stop_too(job: FakeJob) -> None:
    agent = job._processes[1]
    agent.kill()
    agent.wait()
    done = run_tool(STOP, "-d", job.directory)
    assert "stopped 1 deepy.py, 0 agents, 1 processes of ranks" in done.stdout
    assert job.saved


def test_others_are_left_alone(job: FakeJob, tmp_path: Path) -> None:
    sleep = "import time; time.sleep(60)"
    (job.directory / "other.py").write_text(sleep)
    others = [
        job.start("other.py", "deepy.py", "train.py"),  # it only speaks of it
        job.start("-c", sleep, "-m", "megatron.launcher.agent"),
        job.start("-X", "dev", "other.py", "-m", "megatron.launcher.agent"),
        subprocess.Popen(["tail", "-f", "deepy.py", "train.py"], cwd=job.directory, stderr=subprocess.DEVNULL),
    ]
    elsewhere = FakeJob(tmp_path / "elsewhere")
    try:
        assert run_tool(STOP, "-d", job.directory).returncode == 0
        assert [other.poll() for other in others] == [None] * 4
        assert elsewhere.statuses() == [None, None]
    finally:
        elsewhere.end()
        for other in others:
            other.kill()
            other.wait()


def test_commands_that_only_look_at_configs_are_left_alone(job: FakeJob) -> None:
    (job.directory / "deepy.py").write_text("import time; time.sleep(60)")
    plan = job.start("-X", "dev", "deepy.py", "plan", "my.yml")
    started = job.start("-X", "dev", "deepy.py", "generate.py", "my.yml")
    try:
        wait_for(lambda: Path(f"/proc/{started.pid}/cmdline").read_bytes().count(b"\0") > 3)
        assert "stopped 2 deepy.py" in run_tool(STOP, "-d", job.directory).stdout
        assert started.wait() == -15
        assert plan.poll() is None
    finally:
        plan.kill()
        plan.wait()


def test_all_hosts_of_a_hostfile_are_asked(job: FakeJob, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("# ours\nworker-1 slots=2\n\ngone-2 slots=2 # broken\n")
    done = run_tool(STOP, "-H", tmp_path / "hosts", "-d", job.directory, path=fake_ssh(tmp_path))
    assert done.returncode == 1
    assert "worker-1: stopped 1 deepy.py, 1 agents, 1 processes of ranks" in done.stdout
    assert "gone-2: ssh: connect to host gone-2 port 22: No route to host" in done.stdout
    assert "gone-2: could not be reached by ssh" in done.stderr
    assert job.saved


def test_nothing_to_stop_is_no_failure(tmp_path: Path) -> None:
    done = run_tool(STOP, "-d", tmp_path)
    assert (done.returncode, done.stdout) == (0, "localhost: nothing was running\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["-g", "soon"], '-g is "soon": expected a whole number of seconds'),
        (["-g", "0"], "-g is 0: without --now runs need time to save"),
        (["-H", "missing"], 'the hostfile "missing" cannot be read'),
        (["-d"], "-d needs a value"),
        (["all"], '"all" is no option'),
    ],
)
def test_mistakes_get_a_sentence(words: list[str], sentence: str) -> None:
    done = run_tool(STOP, *words)
    assert done.returncode == 2
    assert sentence in done.stderr
