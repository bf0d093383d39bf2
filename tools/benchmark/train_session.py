"""What the benchmarks of training have in common: words of their command lines, the machine, and how a case is measured on it."""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from megatron.environment import available_cores
from tools.benchmark.generate_ways import write_model
from tools.benchmark.processor import processor
from tools.benchmark.train_cases import Case
from tools.benchmark.train_rounds import Measured, Plan, measure_case
from tools.benchmark.train_ways import Way

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = ("torch", "triton", "deepspeed", "transformers", "litgpt", "lightning", "torchtitan")
USABLE = 0.9  # of the memory that is there
MINUTES = {"cpu": 10, "cuda": 8}
STEPS = {"cpu": 1, "cuda": 5}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which device, how long, how often."""
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--tiny", action="store_true", help="models of a few thousand parameters, to try the path")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="of each turn (default: 1, on a GPU 5)")
    parser.add_argument("--warm-up", type=int, default=2, help="steps before the first turn")
    parser.add_argument("--minutes", type=float, help="what has no time is left out (default: 10, on a GPU 8)")
    parser.add_argument("--logs", type=Path, help="a directory for what the processes write (default: none is kept)")


def seconds_of(options: argparse.Namespace) -> float:
    """How long the whole may take."""
    return 60 * float(options.minutes or MINUTES[options.device])


def describe_machine(device: str) -> dict[str, Any]:
    """Hardware and versions."""
    return {
        "processor": processor(),
        "cores": available_cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{package: installed_version(package) for package in PACKAGES},
    }


def installed_version(package: str) -> str | None:
    """None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def free_bytes(device: str) -> int:
    """Of the memory that models are trained in."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


def measure(
    case: Case, ways: Mapping[str, Way], options: argparse.Namespace, *, until: float, logs: Path
) -> tuple[Case, Measured]:
    """Write the model, and measure it; the case with as many rows as there is room for."""
    room = int(free_bytes(options.device) * USABLE)
    case = case.fitting(room)
    steps = options.steps or STEPS[options.device]
    plan = Plan(options.device, options.rounds, steps, options.warm_up, max(2, room // case.bytes), until=until)
    with tempfile.TemporaryDirectory() as directory:
        write_model(case.architecture, Path(directory), dtype=torch.bfloat16)
        return case, measure_case(case, ways, plan, model=Path(directory), logs=logs)
