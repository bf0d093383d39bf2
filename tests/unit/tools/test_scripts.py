"""Every shell script of the repository is one that shellcheck finds nothing in."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY

FOLDERS = (".ci", "containers", "megatron", "tests", "tools")


SCRIPTS = sorted(
    path
    for folder in FOLDERS
    for path in (REPOSITORY / folder).rglob("*")
    if path.suffix in {".sh", ".sbatch"} or path == REPOSITORY / ".ci" / "run"
)


def test_scripts_are_found() -> None:
    names = {str(path.relative_to(REPOSITORY)) for path in SCRIPTS}
    assert names >= {".ci/run", "tools/bash/stop_all.sh", "tools/slurm/train.sbatch"}


def test_shellcheck_finds_nothing() -> None:
    program = str(Path(sys.executable).with_name("shellcheck"))
    done = subprocess.run([program, *map(str, SCRIPTS)], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_make_lint_looks_at_all_of_them() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    patterns = makefile.partition("$(bin)/shellcheck ")[2].partition("\n")[0].split()
    looked_at = {path for pattern in patterns for path in REPOSITORY.glob(pattern)}
    assert set(SCRIPTS) <= looked_at


def test_every_script_for_users_is_told_of() -> None:
    for folder in ("bash", "slurm"):
        text = (REPOSITORY / "tools" / folder / "README.md").read_text()
        told = set(re.findall(r"^\| `([\w.]+)` \|", text, re.MULTILINE))
        programs = {path.name for path in SCRIPTS if path.parent.name == folder and path.read_text().startswith("#!")}
        assert told == programs
