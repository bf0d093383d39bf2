"""tools/bash: a command on all hosts, copying the repository to them, and what every rank is doing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.tools.fake_job import TOOLS, FakeJob, fake_ssh, run_tool


@pytest.fixture
def hostfile(tmp_path: Path) -> Path:
    path = tmp_path / "hosts"
    path.write_text("worker-1 slots=8\nworker-2 slots=8\n")
    return path


@pytest.fixture
def job(tmp_path: Path) -> Iterator[FakeJob]:
    running = FakeJob(tmp_path / "job")
    try:
        yield running
    finally:
        running.end()


def test_a_command_runs_on_every_host_with_its_words_as_they_are(hostfile: Path, tmp_path: Path) -> None:
    done = run_tool("run_on_hosts.sh", "-H", hostfile, "printf", "%s|", "a  b", "c'd", "$HOME", path=fake_ssh(tmp_path))
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["worker-1: a  b|c'd|$HOME|", "worker-2: a  b|c'd|$HOME|"]


def test_one_word_is_a_line_for_a_shell(hostfile: Path, tmp_path: Path) -> None:
    done = run_tool("run_on_hosts.sh", "-H", hostfile, "cd / && pwd; [[ $HOST == worker-1 ]]", path=fake_ssh(tmp_path))
    assert sorted(done.stdout.splitlines()) == ["worker-1: /", "worker-2: /"]
    assert done.returncode == 1, "it failed on the second host"


def test_every_stack_is_shown(job: FakeJob, hostfile: Path, tmp_path: Path) -> None:
    programs = fake_ssh(tmp_path)
    (programs / "py-spy").write_text('#!/bin/sh\necho "stack of process $3 ($1 $2)"\n')
    (programs / "py-spy").chmod(0o755)
    done = run_tool("dump_stacks.sh", "-d", job.directory, path=programs)
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = done.stdout.splitlines()
    assert first == "localhost: rank 3"
    assert second.startswith("localhost: stack of process ")
    assert job.statuses() == [None, None]


def test_without_the_program_that_shows_stacks_it_is_named(job: FakeJob, tmp_path: Path) -> None:
    if shutil.which("py-spy"):
        pytest.skip("py-spy is installed")
    tools = tmp_path / "repository" / "tools" / "bash"
    shutil.copytree(TOOLS, tools)  # beside which there is no .venv
    done = run_tool(str(tools / "dump_stacks.sh"), "-d", job.directory)
    assert done.returncode == 1
    assert "py-spy is not installed: pip install py-spy" in done.stdout


@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")
def test_the_repository_is_copied_without_data(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(TOOLS, repository / "tools" / "bash")
    for name in ("train.py", ".git/config", ".venv/bin/python", ".venv/x.pyc", "data/a.bin", "megatron/x.pyc"):
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(name)
    (repository / ".gitignore").write_text(".venv/\n*.pyc\n/data/\n")
    target = tmp_path / "there"
    (target / "data").mkdir(parents=True)
    (target / "data" / "theirs.bin").write_text("")
    (target / "old.py").write_text("")
    (tmp_path / "hosts").write_text("worker-1 slots=8\n")
    done = run_tool(
        str(repository / "tools" / "bash" / "sync_hosts.sh"),
        "-H",
        tmp_path / "hosts",
        "-t",
        target,
        path=fake_ssh(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"worker-1: {target} is up to date\n"
    files = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    assert {name for name in files if not name.startswith("tools/")} == {
        "train.py",
        ".gitignore",
        ".venv/bin/python",
        ".venv/x.pyc",
        "data/theirs.bin",
    }
