#!/usr/bin/env python
"""Measure how long a command takes to do what it is for: `deepy.py --help`, telling a mistake in a config, the first step of a run.

The run trains a tiny model on made-up text, with one process, so that nearly all of it is start: reading configs, importing, starting a
rank, building indexes, model and engine. With compiled blocks it is measured with an empty cache, then with what that start has left in
it. All are measured in turn, round after round; shown is the median, and the processor time of the command and its children.

    python tools/benchmark/startup.py --rounds 5
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
import random
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import yaml
from rich.console import Console
from rich.table import Table

from megatron.data.encoding.files import encode_files
from megatron.data.encoding.worker import EncodeRecipe
from megatron.tokenizer.base import TokenizerSettings
from tools.benchmark.processor import file_name, processor

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results"
MISTAKE = "no_such_key=1"
POLL_SECONDS = 0.005

RUN = {
    "num_layers": 2,
    "hidden_size": 128,
    "num_attention_heads": 4,
    "seq_length": 128,
    "pos_emb": "rotary",
    "pipe_parallel_size": 0,
    "train_batch_size": 4,
    "train_iters": 1,
    "optimizer": {"type": "Adam", "params": {"lr": 1e-3}},
    "tokenizer_type": "CharLevelTokenizer",
    "launcher": "local",
    "num_gpus": 1,
}


@dataclass(frozen=True)
class Measured:
    """Seconds until it was done, by the clock, and seconds of processors until the command was over, its children included."""

    seconds: float
    processor_seconds: float


def main() -> int:
    """Run as the command line says; returns 0, or 1 when something that was measured failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (%(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS / file_name("startup"), help="the file of the results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        results = measure(Path(directory), rounds=options.rounds)
    show(results)
    text = {"processor": processor(), "cores": os.cpu_count(), "torch": torch.__version__, "results": results}
    options.output.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")
    return 0


def measure(directory: Path, *, rounds: int) -> dict[str, dict[str, float]]:
    """Median seconds of each thing by its name, measured in turn."""
    config = write_config(directory)
    things = starts(config, directory)
    found: dict[str, list[Measured]] = {name: [] for name in things}
    for _ in range(rounds):
        for name, start in things.items():
            found[name].append(start())
    return {
        name: {
            "seconds": statistics.median(one.seconds for one in measured),
            "processor_seconds": statistics.median(one.processor_seconds for one in measured),
        }
        for name, measured in found.items()
    }


def starts(config: Path, directory: Path) -> dict[str, Callable[[], Measured]]:
    """What is measured, by name."""
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(directory / "compiled")}

    def first_step(*words: str, environment: Mapping[str, str] | None = None) -> Measured:
        log = directory / "log"
        shutil.rmtree(log, ignore_errors=True)
        command = ["train.py", str(config), f"log_dir={log}", *words]
        return until(log / "metrics.jsonl", command, environment=environment)

    def compiled_anew() -> Measured:
        shutil.rmtree(cache["TORCHINDUCTOR_CACHE_DIR"], ignore_errors=True)
        return first_step("compile=true", environment=cache)

    return {
        "deepy.py --help": lambda: until(None, ["--help"]),
        "a mistake in a config is told": lambda: until(None, ["train.py", str(config), MISTAKE], status=1),
        "first step": first_step,
        "first step, deepspeed: false": lambda: first_step("deepspeed=false"),
        "first step, compile: true, nothing compiled before": compiled_anew,
        "first step, compile: true, compiled before": lambda: first_step("compile=true", environment=cache),
    }


def until(
    file: Path | None, words: list[str], *, status: int = 0, environment: Mapping[str, str] | None = None
) -> Measured:
    """Run deepy.py and see when the first line is in `file`, or when it ends. Raises RuntimeError for another exit status."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    seconds = None
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [sys.executable, "deepy.py", *words],
            cwd=REPOSITORY,
            env={**os.environ, **(environment or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        while process.poll() is None:
            if seconds is None and file is not None and file.exists() and file.stat().st_size:
                seconds = time.perf_counter() - began
            time.sleep(POLL_SECONDS)
        if process.returncode != status:
            output.seek(0)
            raise RuntimeError(f"deepy.py {' '.join(words)} ended with {process.returncode}:\n{output.read()}")
    seconds = seconds or time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Measured(seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def write_config(directory: Path) -> Path:
    """A config and its data in `directory`."""
    source = directory / "text.jsonl"
    generator = random.Random(0)
    with source.open("w", encoding="utf-8") as file:
        for _ in range(200):
            text = " ".join(generator.choices(["import", "def", "return", "class", "yield"], k=60))
            file.write(json.dumps({"text": text}) + "\n")
    recipe = EncodeRecipe(TokenizerSettings("CharLevelTokenizer"), append_eod=True)
    (encoded,) = encode_files([source], recipe, output_prefix=directory / "text").datasets
    config = directory / "config.yml"
    config.write_text(yaml.safe_dump({**RUN, "data_path": str(encoded.prefix)}), encoding="utf-8")
    return config


def show(results: Mapping[str, Mapping[str, float]]) -> None:
    """Print the table."""
    table = Table("", "seconds", "of processors", title=f"{processor()}, {os.cpu_count()} cores")
    for name, measured in results.items():
        table.add_row(name, f"{measured['seconds']:.2f}", f"{measured['processor_seconds']:.2f}")
    Console().print(table)


if __name__ == "__main__":
    raise SystemExit(main())
