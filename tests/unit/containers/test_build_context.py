"""`.dockerignore` lets in the code, and nothing that lies about a working tree."""

from __future__ import annotations

from fnmatch import fnmatch

import pytest

from tests.conftest import REPOSITORY

LINES = [line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]


def is_sent(path: str) -> bool:
    """Whether a file is in the build context. As Docker has it: the last line that matches the path or a folder above it decides."""
    sent = True
    parts = path.split("/")
    above = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    for line in LINES:
        pattern = line.removeprefix("!").removeprefix("**/")
        anywhere = "**/" in line
        names = parts if anywhere else [name for name in above if name.count("/") == pattern.count("/")]
        if any(fnmatch(name, pattern) for name in names):
            sent = line.startswith("!")
    return sent


@pytest.mark.parametrize(
    "path",
    [
        "deepy.py",
        "train.py",
        "pyproject.toml",
        "configs/125M.yml",
        "megatron/launcher/agent/options.py",
        "requirements/requirements-torch.txt",
        "tools/bash/stop_all.sh",
        "containers/docker/serve_ssh.sh",
    ],
)
def test_code_is_sent(path: str) -> None:
    assert (REPOSITORY / path).exists()
    assert is_sent(path)


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".venv/bin/python",
        ".env",
        "id_ed25519",
        "data/python_stdlib/tokenizer.json",
        "runs/local/checkpoints/global_step200/state.json",
        "tests/conftest.py",
        "megatron/__pycache__/log.cpython-311.pyc",
        "megatron/.mypy_cache/x.json",
    ],
)
def test_data_secrets_and_leftovers_are_not_sent(path: str) -> None:
    assert not is_sent(path)


def test_every_program_of_the_repository_is_sent() -> None:
    assert all(is_sent(path.name) for path in REPOSITORY.glob("*.py"))
