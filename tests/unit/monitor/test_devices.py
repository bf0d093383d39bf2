"""A device's peak is that of its data sheet, or unknown; never that of a product with a similar name."""

from __future__ import annotations

import pytest
import torch

from megatron.monitor.devices import data_sheet_peak, device_name, peak_flops_per_second, peak_memory_bytes

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("AMD Instinct MI300X", 1307),
        ("NVIDIA RTX A1000", None),
        ("NVIDIA RTX A4000", None),
        ("NVIDIA GB200", None),
        ("CPU", None),
    ],
)
def test_peaks_are_those_of_the_data_sheet(name: str, tflops: float | None) -> None:
    assert data_sheet_peak(name) == (None if tflops is None else pytest.approx(tflops * 1e12))


def test_a_configured_peak_wins() -> None:
    assert peak_flops_per_second(CPU, 1.5) == 1.5e12
    assert peak_flops_per_second(CPU, None) is None


def test_a_cpu_has_a_name_and_a_peak_memory() -> None:
    assert device_name(CPU) == "CPU"
    assert peak_memory_bytes(CPU) > 10_000_000
