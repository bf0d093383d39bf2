"""What this process runs on: its name, its peak speed, and how much memory the run has needed."""

from __future__ import annotations

import re
import resource
import sys

import torch

# Dense half-precision tensor-core peaks in TFLOP/s, from the vendors' data sheets (without sparsity). The first name that occurs in
# the product's name as whole words counts, so the more special ones come first.
PEAK_TFLOPS = {
    "H100 NVL": 835.0,
    "H200 NVL": 835.0,
    "H100 PCIe": 756.0,
    "B200": 2250.0,
    "H200": 989.0,
    "GH200": 989.0,
    "H100": 989.0,
    "A100": 312.0,
    "A40": 149.7,
    "L40S": 362.0,
    "V100": 125.0,
    "MI300X": 1307.0,
    "MI250X": 383.0,
}


def device_name(device: torch.device) -> str:
    """The accelerator's product name, or "CPU"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def peak_flops_per_second(device: torch.device, configured_tflops: float | None) -> float | None:
    """`peak_theoretical_tflops` of the config, else the data sheet's value; None for a device that is not in the table."""
    if configured_tflops is not None:
        return configured_tflops * 1e12
    return data_sheet_peak(device_name(device))


def data_sheet_peak(name: str) -> float | None:
    """Peak FLOP/s of the product called `name`, None when it is not in the table."""
    matches = (tflops for key, tflops in PEAK_TFLOPS.items() if re.search(rf"\b{re.escape(key)}\b", name))
    tflops = next(matches, None)
    return None if tflops is None else tflops * 1e12


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory this process has held so far: of the accelerator, or resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    kilobyte = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte
