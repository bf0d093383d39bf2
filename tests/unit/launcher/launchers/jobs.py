"""Jobs and launchers for the tests of what launchers start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from megatron.components import LAUNCHERS
from megatron.launcher.base import HeadPlace, Host, Job
from megatron.neox_arguments.keys.runner import RunnerArgs

TOKEN = "5ec2e7"


def job(*names: str, **changes: Any) -> Job:
    """A job on hosts of these names, with two slots each."""
    values = {
        "script": __file__,
        "arguments": ("--neox-args", "abc="),
        "hosts": tuple(Host(name, (0, 1)) for name in names or ("h1", "h2")),
        "head": HeadPlace(("10.0.0.1", "192.168.0.1"), 4711, TOKEN),
        **changes,
    }
    return Job(**values)


def launcher(name: str, **keys: Any) -> Any:
    """The launcher of this name, built from these keys of a config."""
    return LAUNCHERS.load(name)(RunnerArgs.model_construct(launcher=name, **keys))


def fake_program(folder: Path, name: str, script: str = "exit 0") -> Path:
    """A shell script that passes for a program."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path
