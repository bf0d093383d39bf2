"""How fast text becomes tokens: the usual worker pool around `tokenizers`, this project's pipeline with each engine, and the ceiling.

python tools/benchmark/tokenize.py                                # 64 MB, GPT-2's kind; writes tools/benchmark/results/tokenize_CPU.json
python tools/benchmark/tokenize.py --families gpt2 neox llama3    # several kinds of tokenizer, each with a table of its own
python tools/benchmark/tokenize.py --megabytes 8 --rounds 1 --output result.json

Every measurement is a process of its own, and they take turns: first each of them once, then each of them again. All pipelines have the
same number of workers and must write the same bytes. Times are of the whole call, workers started and files written. What is called a
ceiling runs on one core, without workers.
"""

from __future__ import annotations

import os
import sys

# This file has the name of a module of the standard library, which must be found before it: this directory goes to the end.
sys.path.append(sys.path.pop(0))
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import argparse
import hashlib
import json
import platform
import re
import statistics
import subprocess
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from megatron.data.encode_files import encode_files
from megatron.data.encode_worker import EncodeRecipe
from megatron.tokenizer.base import TokenizerSettings
from megatron.tokenizer.fast import ENGINES, PROVEN, FastEncoder, build_batch_encoder
from megatron.tokenizer.hf import HFTokenizer
from tools.benchmark.tokenize_corpus import read_texts, write_corpus
from tools.benchmark.tokenize_pool import encode_with_pool
from tools.benchmark.tokenizer_families import FAMILIES, train_family

RESULTS = Path(__file__).resolve().parent / "results"
POOL = "pool + tokenizers"
PLAIN = "pipeline + tokenizers"
READING = "ceiling: reading and JSON"
TRAINED_ON = 6_000_000  # characters


def main() -> None:
    args = parse_arguments()
    if args.measure:
        print(json.dumps(measure(args.measure, args.directory, workers=args.workers)))
        return
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
            measured = take_turns(names_of(tokenizer), place, workers=args.workers, rounds=args.rounds)
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
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def train(family: str, corpus: Path, vocab_size: int) -> HFTokenizer:
    """A tokenizer of a family, trained on every so many documents of the corpus."""
    texts = read_texts(corpus)
    step = max(1, sum(map(len, texts)) // TRAINED_ON)
    return train_family(family, texts[::step], vocab_size=vocab_size)


def names_of(tokenizer: HFTokenizer) -> list[str]:
    """The measurements that make sense for a tokenizer."""
    engines = [name for name in ENGINES if build_batch_encoder(tokenizer, engines=[name]).engine == name]
    pipelines = [f"pipeline + {name}" for name in engines]
    return [POOL, PLAIN, *pipelines, READING, *(f"ceiling: {name} alone" for name in engines)]


def take_turns(names: list[str], place: Path, *, workers: int, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Each measurement, in a process of its own, once a round."""
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            command = [
                sys.executable,
                __file__,
                "--measure",
                name,
                "--directory",
                str(place),
                "--workers",
                str(workers),
            ]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            measured[name].append(json.loads(done.stdout))
    return measured


def measure(name: str, place: Path, *, workers: int) -> dict[str, Any]:
    """Seconds, and what else is known: a digest of the output, documents left to `tokenizers`."""
    corpus, tokenizer_file, prefix = place.parent / "corpus.jsonl", place / "tokenizer.json", place / "output"
    engine = name.split()[-1]
    known: dict[str, Any] = {}
    start = time.perf_counter()
    if name == POOL:
        encode_with_pool(corpus, tokenizer_file, prefix, workers=workers)
    elif name == READING:
        read_texts(corpus)
    elif name.startswith("ceiling"):
        encoder = build_batch_encoder(HFTokenizer.from_file(tokenizer_file), engines=[name.split()[1]])
        assert isinstance(encoder, FastEncoder)
        texts = read_texts(corpus)
        start = time.perf_counter()
        encoder.encode_batch(texts)
        known = {"documents": len(texts), "left to tokenizers": encoder.left}
    else:
        settings = TokenizerSettings("HFTokenizer", str(tokenizer_file))
        engines = (engine,) if engine in ENGINES else ()
        recipe = EncodeRecipe(settings, append_eod=True, engines=engines)
        (dataset,) = encode_files([corpus], recipe, output_prefix=prefix, workers=workers).datasets
        prefix = dataset.prefix
    seconds = time.perf_counter() - start
    if not name.startswith("ceiling"):
        known["digest"] = digest(prefix)
    return {"seconds": seconds, **known}


def digest(prefix: Path) -> str:
    """Of the bytes of `.bin` and `.idx`."""
    whole = hashlib.sha256()
    for suffix in (".bin", ".idx"):
        with open(f"{prefix}{suffix}", "rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def compare(measured: dict[str, list[dict[str, Any]]], text_bytes: int) -> dict[str, Any]:
    """Rates from the median of the times; ends the program when outputs differ."""
    digests = {name: {run["digest"] for run in runs if "digest" in run} for name, runs in measured.items()}
    if len(set().union(*digests.values())) != 1:
        raise SystemExit(f"the outputs differ: {digests}")
    rates = {
        name: text_bytes / 1e6 / statistics.median(run["seconds"] for run in runs) for name, runs in measured.items()
    }
    return {
        name: {
            "MB/s": round(rates[name], 2),
            "times the pool": round(rates[name] / rates[POOL], 2),
            "seconds": [round(run["seconds"], 2) for run in runs],
            **{key: value for key, value in runs[-1].items() if key not in ("seconds", "digest")},
        }
        for name, runs in measured.items()
    }


def print_table(family: str, rows: dict[str, Any], args: argparse.Namespace) -> None:
    """One line a measurement."""
    table = Table(
        title=f"{family}: {args.megabytes:g} MB of text, {args.workers} workers; the bytes written are identical"
    )
    for heading in ("", "MB/s", "times the pool", "left to tokenizers"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, row in rows.items():
        left = f"{row['left to tokenizers']} of {row['documents']}" if "documents" in row else ""
        table.add_row(name, f"{row['MB/s']:.1f}", f"{row['times the pool']:.1f}", left)
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
