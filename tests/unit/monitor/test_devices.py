"""What is known of the device this process runs on."""

from __future__ import annotations

import torch

from megatron.monitor.devices import device_name, peak_memory_bytes

CPU = torch.device("cpu")


def test_a_cpu_has_a_name_and_a_peak_memory() -> None:
    assert device_name(CPU) == "CPU"
    assert peak_memory_bytes(CPU) > 10_000_000
