"""Which version of the framework's own source runs here, as git knows it: so that a checkpoint says what made it."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path
from typing import TypedDict

REPOSITORY = Path(__file__).resolve().parents[3]
TIMEOUT_SECONDS = 10


class SourceVersion(TypedDict):
    """commit: hexadecimal; dirty: whether files that git knows differ from it."""

    commit: str
    dirty: bool


@cache
def source_version() -> SourceVersion | None:
    """The version of the source, looked up once a process; None without git, or when the source lies in no repository of its own."""
    return read_source_version(REPOSITORY)


def read_source_version(repository: Path) -> SourceVersion | None:
    """The version of a directory that is the top of a git repository; None when it is not, or git is not there or does not answer."""
    top, _, commit = (_git(repository, "rev-parse", "--show-toplevel", "HEAD") or "").strip().partition("\n")
    if not commit or Path(top).resolve() != repository.resolve():  # installed inside somebody else's repository
        return None
    changes = _git(repository, "status", "--porcelain", "--untracked-files=no")
    return None if changes is None else SourceVersion(commit=commit, dirty=bool(changes))


def _git(repository: Path, *words: str) -> str | None:
    others = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # which name a repository that the caller is at work in
    environment = {name: value for name, value in os.environ.items() if name not in others}
    environment["GIT_OPTIONAL_LOCKS"] = "0"  # looking must not disturb whoever works there
    try:
        done = subprocess.run(
            ["git", "-C", str(repository), *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout
