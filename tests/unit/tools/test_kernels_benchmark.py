"""The measurement of the fused kernels, with a clock that is not one: which calls are made, and what becomes of their times."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron.fused_kernels.dispatch import MODULES
from tools.benchmark.kernels_table import copy_speed, measured, table_of
from tools.benchmark.kernels_work import WORK, Work

CPU = torch.device("cpu")
PROGRAM = Path(__file__).parents[3] / "tools" / "benchmark" / "kernels.py"


class Clock:
    """2 milliseconds for the first call, 6 for the second."""

    def __init__(self) -> None:
        self.found = 2.0

    def __call__(self, call: Callable[[], Any]) -> float:
        for _ in range(2):
            call()
        found, self.found = self.found, 6.0
        return found


@pytest.mark.parametrize("work", WORK, ids=lambda work: work.operation)
def test_every_call_can_be_made_forward_and_backward(work: Work) -> None:
    row = measured(work, "torch", torch.bfloat16, CPU, Clock(), shrink=512)
    assert row["forward ms"] == 2.0
    assert row["backward ms"] == (4.0 if work.backward else None)


def test_bytes_are_those_of_the_first_tensor_as_often_as_it_is_moved() -> None:
    (work,) = (each for each in WORK if each.operation == "rms_norm")
    row = measured(work, "torch", torch.bfloat16, CPU, Clock(), shrink=64)
    size = (8192 // 64) * (4096 // 64) * 2
    assert row["forward GB/s"] == pytest.approx(2 * size / 2e-3 / 1e9)
    assert row["backward GB/s"] == pytest.approx(3 * size / 4e-3 / 1e9)
    assert copy_speed(CPU, Clock(), size=1000) == pytest.approx(1e-3)


def test_the_table_compares_with_copying() -> None:
    row = {"operation": "rms_norm", "way": "kernel", "forward ms": 0.5, "forward GB/s": 1500.0}
    table = table_of([{**row, "backward ms": None, "backward GB/s": None}], 2000.0)
    assert table.splitlines()[-1] == "| rms_norm | kernel | 0.500 ms, 1500 GB/s (75%) |  |"


def test_every_operation_is_measured() -> None:
    assert {work.operation for work in WORK} == set(MODULES)


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would measure")
def test_without_a_gpu_it_says_so_in_a_sentence() -> None:
    found = subprocess.run([sys.executable, str(PROGRAM)], capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert found.stderr == "the kernels can be measured on a GPU only, and torch sees none here\n"
