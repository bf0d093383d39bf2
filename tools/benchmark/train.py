"""Measures how fast models are trained: ours beside transformers, litgpt and torchtitan, on the same weights and batches.

python tools/benchmark/train.py                   # a NeoX and a Llama of 70M parameters; 10 minutes at most; writes results/train_CPU.json
python tools/benchmark/train.py --check           # status 1 when a target is missed, or a program has other losses
python tools/benchmark/train.py --device cuda     # Pythia 160M and 1.4B, Llama 1B and 8B-shaped on one GPU, 2048 and 8192 tokens

Timed are whole optimizer steps: forward, loss, backward, clipping at norm 1, AdamW with weight decay, gradients to zero. Each way runs in a
process of its own, with its own environment (what "out of the box" and "tuned" mean for each is said in train_ways.py). They take turns, A B C A B C;
what counts are ratios within a round, and of those the worst. Before, they are held to the same losses, step by step.

Programs that are not installed are left out, and said to be; requirements/requirements-benchmark.txt has them, and says how to install them.
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
from tools.benchmark.train_cases import CASES, Case
from tools.benchmark.train_job import PRODUCTS
from tools.benchmark.train_report import report_of, table_of
from tools.benchmark.train_rounds import PRODUCTS_WAY
from tools.benchmark.train_session import RESULTS, add_arguments, describe_machine, measure, seconds_of
from tools.benchmark.train_targets import ONLY_LOSSES, problems_of, targets_of
from tools.benchmark.train_ways import OURS, WAYS, Way


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    every = [case.name for cases in CASES.values() for case in cases]
    parser = argparse.ArgumentParser(description="Measure how fast models are trained, beside other programs.")
    parser.add_argument("--models", nargs="+", metavar="NAME", choices=every, help=f"of {'; '.join(every)}")
    parser.add_argument(
        "--ways", nargs="+", metavar="WAY", choices=tuple(WAYS), help=f"beside ours, of {'; '.join(WAYS)}"
    )
    parser.add_argument(
        "--settings",
        type=json.loads,
        metavar="JSON",
        help="keys of ours at its best (default: AT_ITS_BEST in train_ways.py)",
    )
    add_arguments(parser)
    parser.add_argument("--output", type=Path, help="default: tools/benchmark/results/train_CPU.json, or of the GPU")
    parser.add_argument("--check", action="store_true", help="end with status 1 when a target is missed")
    return parser.parse_args()


def run_case(case: Case, options: argparse.Namespace, *, until: float, logs: Path) -> dict[str, Any]:
    """Measure and report one."""
    wanted = {name: way for name, way in WAYS.items() if name == OURS or name in (options.ways or WAYS)}
    if options.settings is not None:
        wanted[OURS] = Way("ours", options.settings)
    against = {
        name: way.reason_against(gated=case.architecture.gated, device=options.device) for name, way in wanted.items()
    }
    ways = {PRODUCTS: PRODUCTS_WAY, **{name: way for name, way in wanted.items() if against[name] is None}}
    case, measured = measure(case, ways, options, until=until, logs=logs)
    measured.left_out = {name: why for name, why in against.items() if why} | measured.left_out
    return report_of(case, measured)


def main() -> None:
    """Measure, print, write the report, and judge."""
    options = parse_arguments()
    began = time.monotonic()
    cases = [
        case
        for case in CASES["tiny" if options.tiny else options.device]
        if options.models is None or case.name in options.models
    ]
    report: dict[str, Any] = {"machine": describe_machine(options.device), "cases": {}}
    print(", ".join(f"{key} {value}" for key, value in report["machine"].items()), flush=True)
    problems = []
    with tempfile.TemporaryDirectory() as directory:
        logs = options.logs or Path(directory)
        logs.mkdir(parents=True, exist_ok=True)
        for number, case in enumerate(cases):
            left = began + seconds_of(options) - time.monotonic()
            found = run_case(case, options, until=time.monotonic() + left / (len(cases) - number), logs=logs)
            report["cases"][case.name] = found
            print(*table_of(case.name, found), sep="\n", flush=True)
            targets = ONLY_LOSSES if options.tiny else targets_of(case.name, options.device)
            problems += [f"{case.name}: {each}" for each in problems_of(found, targets)]
    for problem in problems:
        print(f"FAIL  {problem}")
    report["seconds"] = round(time.monotonic() - began)
    output = options.output or RESULTS / file_name("train", report["machine"]["device"])
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"written: {output.name}, {report['seconds']} s")
    if options.check and problems:
        sys.exit("a target is missed")


if __name__ == "__main__":
    main()
