"""The accelerators of a machine, as the vendor's own program tells of them."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass

from megatron.launcher.asking import ask_program

PATIENCE = 30.0
"""Seconds for nvidia-smi or rocm-smi, which ask every device in turn. A device that has died may block them for ever."""


@dataclass(frozen=True)
class Gpu:
    """One device. Temperatures in degrees Celsius; hot: the one at which it slows down; uncorrected: memory errors that correction could not
    mend since the driver was loaded; throttled: why its clocks are held down now; others: processes on it, `PID NAME`. None: not told.
    """

    index: int
    name: str
    memory_bytes: int
    used_bytes: int
    temperature: float | None = None
    hot: float | None = None
    uncorrected: int | None = None
    repair_pending: bool = False
    repair_failed: bool = False
    throttled: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gpus:
    """driver: its version; problem: why the program could not tell, where there is one that should."""

    devices: tuple[Gpu, ...] = ()
    driver: str = ""
    problem: str = ""


def gather_gpus() -> Gpus:
    """Of nvidia-smi or rocm-smi, whichever is there; no devices where neither is."""
    from megatron.doctor.facts.amd import AMD_QUERY, parse_rocm_smi
    from megatron.doctor.facts.nvidia import NVIDIA_QUERY, parse_nvidia_smi

    for query, parse in ((NVIDIA_QUERY, parse_nvidia_smi), (AMD_QUERY, parse_rocm_smi)):
        program = shutil.which(query[0])
        if program is None:
            continue
        try:
            told = ask_program([program, *query[1:]], seconds=PATIENCE)
        except subprocess.TimeoutExpired:
            return Gpus(problem=f"{query[0]} did not answer within {PATIENCE:.0f} s, as when a device has died")
        except OSError as error:
            return Gpus(problem=f"{query[0]} cannot be run ({error.strerror})")
        if told.returncode != 0:
            said = (told.stdout + told.stderr).strip().splitlines()
            return Gpus(problem=f"{query[0]} ended with status {told.returncode}{f': {said[-1]}' if said else ''}")
        try:
            return parse(told.stdout)
        except ValueError as error:
            return Gpus(problem=f"what {query[0]} printed cannot be read ({error})")
    return Gpus()
