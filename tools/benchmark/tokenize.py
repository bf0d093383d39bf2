"""How fast text becomes tokens: the usual worker pool around `tokenizers`, this project's pipeline with each engine, and the ceiling.

python tools/benchmark/tokenize.py                                # 64 MB, GPT-2's kind; writes tools/benchmark/results/tokenize_CPU.json
python tools/benchmark/tokenize.py --families gpt2 neox llama3    # several kinds of tokenizer, each with a table of its own
python tools/benchmark/tokenize.py --megabytes 8 --rounds 1 --output result.json

Every measurement is a process of its own, and they take turns: first each of them once, then each of them again. All pipelines have the
same number of workers and must write the same bytes. Times are of the whole call, workers started and files written. Processor time, of all
processes together, compares the work where other programs take part of the machine. What is called a ceiling runs on one core, without
workers.
"""

from __future__ import annotations

import os
import sys

# This file has the name of a module of the standard library, which must be found before it: this directory goes to the end.
sys.path.append(sys.path.pop(0))
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import argparse
import json
import platform
import re
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from megatron.tokenizer.fast.choice import ENGINES, PROVEN, build_batch_encoder
from megatron.tokenizer.hf import HFTokenizer
from tools.benchmark.tokenize_corpus import read_texts, write_corpus
from tools.benchmark.tokenize_measure import PLAIN, POOL, READING
from tools.benchmark.tokenizer_families import FAMILIES, train_family

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).resolve().parent / "results"
TRAINED_ON = 6_000_000  # characters
TIMES = ("seconds", "processor seconds")


def main() -> None:
    args = parse_arguments()
    result: dict[str, Any] = {
        "machine": machine(),
        "megabytes": args.megabytes,
        "workers": args.workers,
        "families": {},
    }
    with tempfile.TemporaryDirectory() as directory:
        corpus = Path(directory, "corpus.jsonl")
        text_bytes = write_corpus(corpus, megabytes=args.megabytes)
        for family in args.families:
            place = Path(directory, family)
            place.mkdir()
            tokenizer = train(family, corpus, args.vocab_size)
            tokenizer.save(place / "tokenizer.json")
            names = [name for name in names_of(tokenizer) if not args.only or name in (POOL, *args.only)]
            measured = take_turns(names, place, workers=args.workers, rounds=args.rounds)
            result["families"][family] = compare(measured, text_bytes)
            print_table(family, result["families"][family], args)
    output = args.output or RESULTS / f"tokenize_{slug(result['machine'])}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time tokenising.")
    parser.add_argument("--families", nargs="+", default=["gpt2"], choices=FAMILIES)
    parser.add_argument("--megabytes", type=float, default=64, help="text in the corpus (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2, help="turns that each measurement takes")
    parser.add_argument("--vocab-size", type=int, default=50_000)
    parser.add_argument("--output", type=Path, help="where to write the result")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices=every_name(), help=f"these measurements and {POOL} alone"
    )
    return parser.parse_args()


def train(family: str, corpus: Path, vocab_size: int) -> HFTokenizer:
    """A tokenizer of a family, trained on every so many documents of the corpus."""
    texts = read_texts(corpus)
    step = max(1, sum(map(len, texts)) // TRAINED_ON)
    return train_family(family, texts[::step], vocab_size=vocab_size)


def names_of(tokenizer: HFTokenizer) -> list[str]:
    """The measurements that make sense for a tokenizer."""
    return every_name([name for name in ENGINES if build_batch_encoder(tokenizer, engines=[name]).engine == name])


def every_name(engines: Sequence[str] = ENGINES) -> list[str]:
    """The measurements there are, with these engines."""
    pipelines = [f"pipeline + {name}" for name in engines]
    return [POOL, PLAIN, *pipelines, READING, *(f"ceiling: {name} alone" for name in engines)]


def take_turns(names: list[str], place: Path, *, workers: int, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Each measurement, in a process of its own, once a round."""
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            command = [
                sys.executable,
                "-m",
                "tools.benchmark.tokenize_measure",
                name,
                "--directory",
                str(place),
                "--workers",
                str(workers),
            ]
            done = subprocess.run(command, check=True, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
            measured[name].append(json.loads(done.stdout))
    return measured


def compare(measured: dict[str, list[dict[str, Any]]], text_bytes: int) -> dict[str, Any]:
    """Ratios of the medians of the times; ends the program when outputs differ."""
    digests = {name: {run["digest"] for run in runs if "digest" in run} for name, runs in measured.items()}
    if len(set().union(*digests.values())) != 1:
        raise SystemExit(f"the outputs differ: {digests}")
    times = {
        kind: {name: statistics.median(run[kind] for run in runs) for name, runs in measured.items()} for kind in TIMES
    }
    wall, processor = (times[kind] for kind in TIMES)
    return {
        name: {
            "MB/s": round(text_bytes / 1e6 / wall[name], 2),
            "times the pool": round(wall[POOL] / wall[name], 2),
            "times the pool by processor time": round(processor[POOL] / processor[name], 2),
            **{kind: [round(run[kind], 2) for run in runs] for kind in TIMES},
            **{key: value for key, value in runs[-1].items() if key not in (*TIMES, "digest")},
        }
        for name, runs in measured.items()
    }


def print_table(family: str, rows: dict[str, Any], args: argparse.Namespace) -> None:
    """One line a measurement."""
    table = Table(
        title=f"{family}: {args.megabytes:g} MB of text, {args.workers} workers; the bytes written are identical"
    )
    for heading in ("", "MB/s", "times the pool", "by processor time", "left to tokenizers"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, row in rows.items():
        left = f"{row['left to tokenizers']} of {row['documents']}" if "documents" in row else ""
        ratios = (row["times the pool"], row["times the pool by processor time"])
        table.add_row(name, f"{row['MB/s']:.1f}", *(f"{ratio:.1f}" for ratio in ratios), left)
    Console().print(table)


def machine() -> dict[str, Any]:
    """The hardware and the versions; nothing that names this very machine."""
    model = next((line.split(":")[1].strip() for line in cpu_information() if line.startswith("model name")), "")
    return {
        "cpu": model or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{package: version(package) for package in PROVEN},
    }


def cpu_information() -> list[str]:
    """The lines of Linux's description of the processors."""
    file = Path("/proc/cpuinfo")
    return file.read_text().splitlines() if file.exists() else []


def slug(description: dict[str, Any]) -> str:
    """`AMD EPYC` with 2 cores as `amd_epyc_2_cores`."""
    return re.sub(r"[^a-z0-9]+", "_", f"{description['cpu']} {description['cores']} cores".lower()).strip("_")


if __name__ == "__main__":
    main()
