"""What torch says of itself, asked of a child process: importing it takes seconds, and a broken one may crash."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from megatron.doctor.facts.source import REPOSITORY
from megatron.launcher.asking import ask_program

PATIENCE = 120.0
"""Seconds for importing torch and DeepSpeed: on a cold network disk that takes a minute."""

PROBE = (sys.executable, "-m", "megatron.doctor.children.torch_probe")


@dataclass(frozen=True)
class TorchDevice:
    """A GPU as torch sees it."""

    name: str
    memory_bytes: int
    capability: tuple[int, int]
    has_bfloat16: bool


@dataclass(frozen=True)
class TorchFacts:
    """cuda, rocm: the version it was built for, empty if it was not; nccl: empty without GPUs; problem: why it cannot be imported, its last
    words; imports: of the modules that are built against torch and installed, why one cannot be imported (empty when it can).
    """

    version: str = ""
    cuda: str = ""
    rocm: str = ""
    devices: tuple[TorchDevice, ...] = ()
    nccl: str = ""
    gloo: bool = False
    problem: str = ""
    imports: Mapping[str, str] = field(default_factory=dict)


def ask_torch(command: Sequence[str] = PROBE, *, patience: float = PATIENCE) -> TorchFacts:
    """What the probe tells."""
    search = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    try:
        done = ask_program(command, seconds=patience, environment={**os.environ, "PYTHONPATH": search})
    except subprocess.TimeoutExpired as late:
        told = late.stdout.decode(errors="replace") if isinstance(late.stdout, bytes) else late.stdout or ""
        return read_told(told, ending=f"it did not end within {patience:g} s")
    return read_told(done.stdout, ending=_ending(done.returncode, done.stderr))


def read_told(told: str, *, ending: str) -> TorchFacts:
    """The probe's lines. ending: how it ended, empty when well; then the module it was importing is at fault."""
    facts: dict[str, Any] = {}
    for line in told.splitlines():
        with contextlib.suppress(ValueError):  # it was killed in the middle of a line
            facts |= json.loads(line)
    torch, importing = facts.pop("torch", None), facts.pop("importing", None)
    if torch is None:
        return TorchFacts(problem=ending or "it told nothing")
    devices = tuple(
        TorchDevice(**{**device, "capability": tuple(device["capability"])}) for device in torch.pop("devices")
    )
    if ending and importing is not None:
        facts.setdefault(importing, ending)
    return TorchFacts(**torch, devices=devices, imports=facts)


def _ending(status: int, printed: str) -> str:
    if status == 0:
        return ""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    return (
        f"killed by signal {-status}{f' ({last})' if last else ''}" if status < 0 else last or f"exit status {status}"
    )
