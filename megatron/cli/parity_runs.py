"""Starts the runs that `deepy.py parity` compares, each as a user would, and the program that compares their checkpoints."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megatron.errors import LaunchError
from megatron.launcher.agent.options import REPOSITORY
from megatron.launcher.aside import Program, run_aside

GRACE_SECONDS = 5
ON_CPU = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "", "ROCR_VISIBLE_DEVICES": "", "DLTS_HOSTFILE": ""}
TOLD = 30
"""Lines of a failed run's output that are told at most."""


def run_both(layout: Path, one_process: Path) -> None:
    """Run `deepy.py train.py` with the config in each of these folders, at the same time, on the CPU of this machine.

    Raises LaunchError with the error of the one that fails.
    """
    command = (sys.executable, str(REPOSITORY / "deepy.py"), "train.py", f"--grace-seconds={GRACE_SECONDS}")
    folders = {"the run in the layout of the config": layout, "the run in one process": one_process}
    _run(
        {
            name: Program((*command, str(folder / "config.yml")), folder / "output.txt", ON_CPU)
            for name, folder in folders.items()
        }
    )


def compare_checkpoints(layout: Path, one_process: Path, *, output: Path) -> Mapping[int, Mapping[str, float]]:
    """The deviation of every tensor by iteration. In a program of its own, as reading tensors takes torch."""
    directories = (str(folder / "checkpoints") for folder in (layout, one_process))
    command = (sys.executable, "-m", "megatron.checkpointing.compare", *directories, str(output))
    program = Program(command, output.with_suffix(".txt"), {**ON_CPU, "PYTHONPATH": str(REPOSITORY)})
    _run({"comparing the checkpoints": program})
    return {int(iteration): tensors for iteration, tensors in json.loads(output.read_text()).items()}


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The records of a run."""
    return [json.loads(line) for line in (folder / "logs" / "metrics.jsonl").read_text().splitlines()]


def _run(programs: Mapping[str, Program]) -> None:
    for name, status in zip(programs, run_aside(list(programs.values())), strict=True):
        if status:
            raise LaunchError(f"{name} failed with exit status {status}:\n{_error(programs[name].log)}")


def _error(log: Path) -> str:
    """What a program printed from its error on, or at the end."""
    lines = log.read_text(errors="replace").splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith("error")), len(lines) - TOLD)
    return "\n".join(lines[max(start, 0) :][-TOLD:])
