"""What this process runs on: its name, and how much memory the run has needed. Peak speeds are in `megatron.planning.hardware.devices`."""

from __future__ import annotations

import resource
import sys

import torch


def device_name(device: torch.device) -> str:
    """The accelerator's product name, or "CPU"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory this process has held so far: of the accelerator, or resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    kilobyte = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte
