"""A place like the work directory of a container, where commands for it can be tried without running anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from megatron.cli.run import option_assignments, parse_run_args
from megatron.cli.starting import Plan, make_plan
from tests.conftest import REPOSITORY

Planner = Callable[[Sequence[str], Mapping[str, str]], Plan]


@pytest.fixture
def planner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planner:
    """What `python deepy.py ...` would run in a container, given its words and environment. Raises NeoXError as deepy.py would."""
    for path in REPOSITORY.iterdir():
        if path.name in {"configs", "megatron", "deepy.py", "train.py", "prepare_data.py"}:
            (tmp_path / path.name).symlink_to(path)
    tokenizer = tmp_path / "data" / "python_stdlib" / "tokenizer.json"
    tokenizer.parent.mkdir(parents=True)
    tokenizer.write_text("{}")
    monkeypatch.chdir(tmp_path)

    def plan(command: Sequence[str], environment: Mapping[str, str]) -> Plan:
        assert list(command[:2]) == ["python", "deepy.py"]
        with monkeypatch.context() as context:
            for name, value in environment.items():
                context.setenv(name, value)
            options = parse_run_args(command[2:])
            return make_plan(options, option_assignments(options))

    return plan
