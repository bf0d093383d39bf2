"""The peak that utilisation is measured against."""

from __future__ import annotations

import pytest
import torch

from megatron.planning.hardware.devices import DEVICES
from megatron.training.speed import peak_flops_per_second

CPU = torch.device("cpu")


def test_a_configured_peak_wins() -> None:
    assert peak_flops_per_second(CPU, 1.5) == 1.5e12


def test_a_cpu_has_no_peak() -> None:
    assert peak_flops_per_second(CPU, None) is None


def test_the_peak_of_an_accelerator_is_that_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("megatron.training.speed.device_name", lambda _: "NVIDIA A100-SXM4-40GB")
    assert peak_flops_per_second(torch.device("cuda", 0), None) == DEVICES["A100-40GB"].peak_flops
