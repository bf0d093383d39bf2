"""Measures what each technique is worth: whole optimizer steps with it and without, all others on; time and memory.

python tools/benchmark/techniques.py                  # those of a CPU; writes results/techniques_CPU.json
python tools/benchmark/techniques.py --device cuda    # all, on one GPU

Each setting runs in a process of its own; they take turns, as in train.py, with the same weights and batches; those with
other losses than ours at its best are told.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

# In place of this script's directory, in which tokenize.py would hide the module of that name.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import tempfile
import time
from typing import Any

from tools.benchmark.processor import file_name
from tools.benchmark.techniques_table import TECHNIQUES, effects, markdown_of, ways_of
from tools.benchmark.train_cases import CASES
from tools.benchmark.train_report import report_of, with_other_losses
from tools.benchmark.train_session import RESULTS, add_arguments, describe_machine, measure, seconds_of


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure what each technique is worth in a whole step.")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="default: the first two of train.py")
    parser.add_argument(
        "--techniques", nargs="+", metavar="NAME", choices=tuple(TECHNIQUES), help=f"of {'; '.join(TECHNIQUES)}"
    )
    parser.add_argument(
        "--output", type=Path, help="default: tools/benchmark/results/techniques_CPU.json, or of the GPU"
    )
    add_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Measure, print, write."""
    options = parse_arguments()
    began = time.monotonic()
    cases = CASES["tiny" if options.tiny else options.device]
    cases = tuple(case for case in cases if case.name in options.models) if options.models else cases[:2]
    report: dict[str, Any] = {"machine": describe_machine(options.device), "cases": {}}
    with tempfile.TemporaryDirectory() as directory:
        logs = options.logs or Path(directory)
        logs.mkdir(parents=True, exist_ok=True)
        for number, case in enumerate(cases):
            chosen = {name: TECHNIQUES[name] for name in options.techniques or TECHNIQUES}
            ways, skipped = ways_of(chosen, device=options.device, gated=case.architecture.gated)
            left = began + seconds_of(options) - time.monotonic()
            case, measured = measure(
                case, ways, options, until=time.monotonic() + left / (len(cases) - number), logs=logs
            )
            found = report_of(case, measured)
            found["effects"] = effects(chosen, measured, device=options.device)
            found["skipped"] = skipped
            report["cases"][case.name] = found
            print(f"\n{case.name}", *markdown_of({case.name: found}), sep="\n", flush=True)
            for name, reason in {**skipped, **measured.left_out}.items():
                print(f"{name}: left out: {reason}")
            for name in with_other_losses(found):
                print(f"FAIL  {name} has other losses: {found['differences'][name]}")
    report["seconds"] = round(time.monotonic() - began)
    output = options.output or RESULTS / file_name("techniques", report["machine"]["device"])
    output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"written: {output.name}, {report['seconds']} s")


if __name__ == "__main__":
    main()
