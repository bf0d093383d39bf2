"""What the documents say can be run, can be run, and the files they name exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from megatron.components import COMMANDS
from tests.conftest import REPOSITORY

DOCUMENTS = ("README.md", "CONTRIBUTING.md", "configs/README.md")
MAKE_TARGETS = {"train", "test", "lint", "format", "help", "install", "clean", "reference"}


def code_lines(document: str) -> list[str]:
    """The lines of a document's shell blocks (```bash, or indented by four spaces)."""
    text = (REPOSITORY / document).read_text()
    blocks = re.findall(r"^```bash\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    indented = re.findall(r"^    (python .*)$", text, flags=re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()] + indented
    return [line.split("  #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


def commands(program: str) -> list[list[str]]:
    """Every documented command that starts with `program`, as words."""
    words = (shlex.split(line) for document in DOCUMENTS for line in code_lines(document))
    return [line for line in words if " ".join(line).startswith(program)]


def test_documented_make_targets_exist() -> None:
    named = {word for line in commands("make") for word in line[1:] if "=" not in word}
    assert {"train", "test"} <= named <= MAKE_TARGETS
    makefile = (REPOSITORY / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in named)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository as it is once the documented `prepare_data.py` has run: with the tokenizer that the configs name."""
    directory = tmp_path_factory.mktemp("prepared")
    for path in REPOSITORY.iterdir():
        if path.name != "data":
            (directory / path.name).symlink_to(path)
    (directory / "data" / "python_stdlib").mkdir(parents=True)
    (directory / "data" / "python_stdlib" / "tokenizer.json").write_text("{}")
    return directory


@pytest.mark.parametrize("command", commands("python deepy.py"), ids=" ".join)
def test_documented_runs_are_accepted(command: list[str], prepared: Path) -> None:
    _, deepy, name, *words = command
    dry_run = [] if name in COMMANDS else ["--dry-run"]
    done = subprocess.run(
        [sys.executable, deepy, name, *dry_run, *words], cwd=prepared, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [*commands("python prepare_data.py"), *commands("python tools/")], ids=" ".join)
def test_documented_tools_know_their_options(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, command[1], "--help"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    options = [word.split("=")[0] for word in command[2:] if word.startswith("-")]
    assert all(option in done.stdout for option in options)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_files_exist(document: str) -> None:
    text = (REPOSITORY / document).read_text()
    named = set(re.findall(r"`((?:megatron|configs|tests|tools|requirements)/[\w./-]+)`", text))
    missing = [name for name in named if not (REPOSITORY / name).exists()]
    assert not missing


def test_the_tree_in_the_readme_is_the_tree() -> None:
    text = (REPOSITORY / "README.md").read_text()
    packages = {path.name for path in (REPOSITORY / "megatron").iterdir() if (path / "__init__.py").exists()}
    listed = set(re.findall(r"^  (\w+)/ +\S", text, flags=re.MULTILINE))
    assert packages <= listed, packages - listed
    assert Path(REPOSITORY / "LICENSE").exists()
