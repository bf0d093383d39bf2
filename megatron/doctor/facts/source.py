"""Which source of this project a machine has: the hash of its modules, which is what runs, and the git commit, which is what people know."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]


def source_hash(repository: Path = REPOSITORY) -> str:
    """Twelve characters that differ when a module or an entry script does."""
    digest = hashlib.sha256()
    modules = sorted((repository / "megatron").rglob("*.py"))
    for path in [*sorted(repository.glob("*.py")), *modules]:
        digest.update(f"{path.relative_to(repository).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def git_commit(repository: Path = REPOSITORY) -> str:
    """The commit, with a `+` where files differ from it; empty where git cannot tell."""
    git = shutil.which("git")
    if git is None or not (repository / ".git").exists():
        return ""

    def ask(*words: str) -> str | None:
        try:
            done = subprocess.run(
                [git, "-C", str(repository), *words], capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = ask("rev-parse", "--short=12", "HEAD")
    return f"{commit}{'+' if ask('status', '--porcelain', '--untracked-files=no') else ''}" if commit else ""
