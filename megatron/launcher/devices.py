"""Counts the accelerators of this machine without importing torch, which would take seconds before the first error message."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from megatron.errors import LaunchError
from megatron.launcher.asking import ask_program

NVIDIA_VARIABLES = ("CUDA_VISIBLE_DEVICES",)
AMD_VARIABLES = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")

ANSWER_SECONDS = 20.0
"""Seconds for nvidia-smi, which wakes every device up."""


def count_devices(environment: Mapping[str, str] | None = None) -> int:
    """Number of NVIDIA or AMD devices that a process with this environment may use; 0 on a machine without."""
    variables = os.environ if environment is None else environment
    nvidia = count_nvidia_devices()
    if nvidia:
        return _visible(nvidia, NVIDIA_VARIABLES, variables)
    return _visible(count_amd_devices(), AMD_VARIABLES, variables)


def count_nvidia_devices(driver_folder: Path = Path("/proc/driver/nvidia/gpus")) -> int:
    """Devices listed by nvidia-smi, which knows what a container was given; without it, by the kernel driver."""
    program = shutil.which("nvidia-smi")
    if program:
        try:
            listing = ask_program([program, "-L"], seconds=ANSWER_SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            listing = None
        if listing is not None and listing.returncode == 0:
            return len(re.findall(r"^GPU \d+:", listing.stdout, re.MULTILINE))
    return len(list(driver_folder.iterdir())) if driver_folder.is_dir() else 0


def count_amd_devices(topology: Path = Path("/sys/class/kfd/kfd/topology/nodes")) -> int:
    """Nodes of the kernel's compute topology that are GPUs (CPUs are listed there too, with a gpu_id of 0)."""
    identifiers = []
    for file in topology.glob("*/gpu_id"):
        try:
            identifiers.append(file.read_text().strip())
        except OSError:  # the device was not given to this container
            continue
    return sum(identifier not in ("", "0") for identifier in identifiers)


def restrict_devices(slots: Sequence[int], *, count: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that make only the devices `slots` (numbered among the `count` visible ones) visible; empty when that is all of them, or none
    is to be used. Raises LaunchError for a slot that is no device."""
    present = environment.get("CUDA_VISIBLE_DEVICES")
    if not count or present == "" or tuple(slots) == tuple(range(count)):
        return {}
    names = [name.strip() for name in present.split(",")] if present else [str(index) for index in range(count)]
    if slots[-1] >= len(names):
        raise LaunchError(
            f"{os.uname().nodename} shows {len(names)} device{'s' if len(names) > 1 else ''}, and device {slots[-1]} was asked for: correct its "
            "slots= in the hostfile, include or exclude (devices are numbered from 0)"
        )
    return {"CUDA_VISIBLE_DEVICES": ",".join(names[slot] for slot in slots)}


def _visible(count: int, names: Sequence[str], variables: Mapping[str, str]) -> int:
    for name in names:
        if name in variables:
            count = min(count, _entries(variables[name], count))
    return count


def _entries(text: str, count: int) -> int:
    """Devices a visibility list names: entries (numbers or UUIDs) up to the first that is not a device, as the drivers read it."""
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    for position, entry in enumerate(entries):
        if entry.lstrip("-").isdigit() and not 0 <= int(entry) < count:
            return position
    return len(entries)
