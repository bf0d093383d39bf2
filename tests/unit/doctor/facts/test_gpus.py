from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from megatron.doctor.facts import gpus
from megatron.doctor.facts.gpus import gather_gpus
from megatron.launcher import asking


def fake_program(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_without_a_vendors_program_there_are_no_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gather_gpus() == gpus.Gpus()


def test_a_program_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_program(tmp_path, monkeypatch, "nvidia-smi", "echo NVIDIA-SMI has failed to talk to the driver; exit 9")
    assert gather_gpus().problem == "nvidia-smi ended with status 9: NVIDIA-SMI has failed to talk to the driver"


def test_a_program_that_prints_something_else_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_program(tmp_path, monkeypatch, "rocm-smi", "echo nothing")
    assert "what rocm-smi printed cannot be read" in gather_gpus().problem


def test_a_program_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "PATIENCE", 0.2)
    fake_program(tmp_path, monkeypatch, "nvidia-smi", "exec sleep 20")
    assert "did not answer" in gather_gpus().problem


def test_a_program_that_not_even_killing_ends_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "PATIENCE", 0.2)
    monkeypatch.setattr(asking, "LAST_SECONDS", 0.1)
    monkeypatch.setattr(
        subprocess.Popen, "kill", lambda self: None
    )  # as the kernel does while it waits for a dead device
    fake_program(tmp_path, monkeypatch, "nvidia-smi", "exec sleep 15")
    began = time.monotonic()
    assert "did not answer" in gather_gpus().problem
    assert time.monotonic() - began < 10


def test_a_program_that_prints_no_text_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_program(tmp_path, monkeypatch, "nvidia-smi", r"printf '\377\376'")
    assert "what nvidia-smi printed cannot be read" in gather_gpus().problem
