"""What git says of the source, where there is git."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import megatron
from megatron.checkpointing.saving.source_version import REPOSITORY, read_source_version


def git(directory: Path, *words: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@b.c")
    done = subprocess.run(["git", "-C", str(directory), *identity, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit."""
    directory = tmp_path / "repository"
    (directory / "inner").mkdir(parents=True)
    (directory / "file").write_text("1")
    git(directory, "init", "--quiet")
    git(directory, "add", "file")
    git(directory, "commit", "--quiet", "--message", "first")
    return directory


def test_the_commit_and_whether_known_files_differ_from_it(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    (repository / "notes").write_text("not known to git")
    assert read_source_version(repository) == {"commit": commit, "dirty": False}
    (repository / "file").write_text("2")
    assert read_source_version(repository) == {"commit": commit, "dirty": True}


def test_the_framework_is_looked_for_in_the_directory_that_holds_its_package() -> None:
    assert Path(megatron.__file__).resolve() == REPOSITORY / "megatron" / "__init__.py"


def test_the_repository_in_whose_hook_this_runs_is_not_asked(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    assert read_source_version(repository) is not None


def test_there_is_none_without_a_repository_of_its_own(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_source_version(repository / "inner") is None
    assert read_source_version(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_source_version(repository) is None
