"""A store in this process's memory, whose requests are noted and can be made to fail."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from megatron.checkpointing.remote import retry

URL = "memory://bucket/run"

Action = Callable[..., Any]


@dataclass
class Requests:
    """What was asked of the store, in order: (method, last two parts of the key). fail: called before each with the same; may raise."""

    made: list[tuple[str, str]] = field(default_factory=list)
    fail: Callable[[str, str], None] = lambda method, key: None

    def of(self, method: str) -> list[str]:
        return [key for made, key in self.made if made == method]


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Requests]:
    """The requests to an empty store; staging lies in a directory of the test's own, and nobody waits before trying again."""
    noted = Requests()

    def watched(name: str, number_of_key: int) -> Action:
        method: Action = getattr(MemoryFileSystem, name)

        def call(self: MemoryFileSystem, *arguments: Any, **options: Any) -> Any:
            key = "/".join(str(arguments[number_of_key]).split("/")[-2:])
            noted.made.append((name, key))
            noted.fail(name, key)
            return method(self, *arguments, **options)

        return call

    for name, number_of_key in {"cat_file": 0, "pipe_file": 0, "rm_file": 0, "rm": 0, "put_file": 1}.items():
        monkeypatch.setattr(MemoryFileSystem, name, watched(name, number_of_key))
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    monkeypatch.setattr(retry, "FIRST_DELAY_SECONDS", 0.0)
    staging = tmp_path / "staging"
    staging.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(staging))
    yield noted
    left = [path for path in staging.rglob("*") if path.is_file()]
    assert not left, f"something stays in the staging directory: {left}"
