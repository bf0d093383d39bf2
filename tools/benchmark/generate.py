"""Measures how fast tokens are generated: ours beside transformers' generate(), with either of its caches, and litgpt.

python tools/benchmark/generate.py              # two models of 150M parameters, batches of 1 and 8; writes results/generate_CPU.json
python tools/benchmark/generate.py --check      # status 1 when a target is missed, or another way gives other tokens in fp32
python tools/benchmark/generate.py --device cuda --dtype bf16 --models "pythia 1B"

All ways have the same weights, threads and settings of the allocator, and take turns, round after round: what counts are ratios within
a round, of the median step and of whole calls. litgpt is left out, and said to be, where it is not
installed; it is no requirement of this project, and can be given by PYTHONPATH.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

# In place of this script's directory, in which tokenize.py would hide the module of that name.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import os
import platform
import tempfile
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from megatron.environment import rank_defaults
from megatron.initialize import cpu_threads
from tools.benchmark.generate_rounds import Sizes, measure_case, problems_of, table_of, weight_bytes
from tools.benchmark.generate_ways import DTYPES, MODELS, load_ways, write_model
from tools.benchmark.processor import file_name, processor

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = ("torch", "transformers", "litgpt")


def start_as_ranks_do(device: str) -> None:
    """Begin again with the variables that the launcher gives every process, some of which count only at its start."""
    missing = rank_defaults(local_world_size=1, accelerators=device != "cpu")
    if missing:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **missing})


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Hardware and versions."""
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
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


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure how fast tokens are generated, beside other programs.")
    parser.add_argument("--models", nargs="+", choices=tuple(MODELS), default=["pythia 160M", "llama 150M"])
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 8], help="batch sizes")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of each prompt")
    parser.add_argument("--steps", type=int, default=64, help="tokens generated after the first one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, help="default: tools/benchmark/results/generate_CPU.json")
    parser.add_argument("--check", action="store_true", help="end with status 1 when a target is missed")
    return parser.parse_args()


def main() -> None:
    """Measure, print, write the report, and judge."""
    options = parse_arguments()
    start_as_ranks_do(options.device)
    device, dtype = torch.device(options.device), DTYPES[options.dtype]
    torch.set_num_threads(cpu_threads(1))
    report: dict[str, Any] = {"machine": describe_machine(device), "dtype": options.dtype, "models": {}}
    if report["machine"]["litgpt"] is None:
        print("litgpt is not installed: left out")
    problems = []
    for name in options.models:
        architecture = MODELS[name]
        bytes_a_step = weight_bytes(architecture, dtype)
        report["models"][name] = {"bytes_a_step": bytes_a_step, "cases": []}
        with tempfile.TemporaryDirectory() as directory:
            write_model(architecture, Path(directory), dtype=dtype)
            ways = load_ways(architecture, Path(directory), dtype=dtype, device=device)
        for rows in options.rows:
            sizes = Sizes(rows, options.prompt, options.steps)
            case = measure_case(ways, sizes, vocab_size=architecture.vocab_size, rounds=options.rounds, device=device)
            report["models"][name]["cases"].append(case)
            print(f"\n{name}, {options.dtype}", *table_of(case, bytes_a_step=bytes_a_step), sep="\n", flush=True)
            found = problems_of(case, exact=options.dtype == "fp32")
            problems += [f"{name}, batch {rows}: {problem}" for problem in found]
    for problem in problems:
        print(f"FAIL  {problem}")
    output = options.output or RESULTS / file_name("generate")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"written: {output.name}")
    if options.check and problems:
        sys.exit("a target is missed")


if __name__ == "__main__":
    main()
