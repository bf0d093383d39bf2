"""Measures the fused kernels on a GPU: the bandwidth of each, beside plain torch, torch.compile and copying.

python tools/benchmark/kernels.py                    # every operation in bf16; writes results/kernels_GPU.json
python tools/benchmark/kernels.py --operations rms_norm causal_softmax --dtype fp32

Such operations are bound by memory, so that what counts is the share of the speed at which this GPU copies, measured in the same run.
Bytes are those that must be read or written at least once, whatever an implementation does. Without a GPU there is nothing to measure.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

# In place of this script's directory, in which tokenize.py would hide the module of that name.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import platform
from importlib.metadata import version
from typing import Any

import torch

from megatron.fused_kernels.dispatch import MODULES
from tools.benchmark.kernels_table import DTYPES, WAYS, copy_speed, measured, table_of
from tools.benchmark.kernels_work import WORK

RESULTS = Path(__file__).resolve().parent / "results"


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Measure the fused kernels on a GPU.")
    parser.add_argument("--operations", nargs="+", choices=tuple(MODULES), default=list(MODULES))
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="bf16")
    parser.add_argument("--output", type=Path, help="default: tools/benchmark/results/kernels_GPU.json")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("the kernels can be measured on a GPU only, and torch sees none here", file=sys.stderr)
        return 1
    from triton.testing import do_bench

    def milliseconds(call: Any) -> float:
        found: float = do_bench(call, return_mode="median")  # with the caches of the device emptied before each call
        return found

    device = torch.device("cuda")
    ceiling = copy_speed(device, milliseconds)
    rows = [
        measured(work, way, DTYPES[arguments.dtype], device, milliseconds)
        for work in WORK
        if work.operation in arguments.operations
        for way in WAYS
    ]
    name = torch.cuda.get_device_name(device)
    print(f"{name}, {arguments.dtype}: copying moves {ceiling:.0f} GB/s\n\n{table_of(rows, ceiling)}")
    output = arguments.output or RESULTS / f"kernels_{name.replace(' ', '_')}.json"
    machine = {
        "device": name,
        "python": platform.python_version(),
        "torch": version("torch"),
        "triton": version("triton"),
    }
    result = {"machine": machine, "dtype": arguments.dtype, "copy": ceiling, "rows": rows}
    output.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
