"""Runs `deepy.py` as a user does, on a model small enough to train in seconds, and reads what it left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import REPOSITORY

SMALL = {
    "num_layers": 4,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "seq_length": 32,
    "max_position_embeddings": 32,
    "pos_emb": "rotary",
    "rotary_pct": 0.25,
    "gpt_j_residual": True,
    "no_weight_tying": True,
    "init_method": "small_init",
    "output_layer_init_method": "wang_init",
    "optimizer": {"type": "Adam", "params": {"lr": 0.01, "betas": [0.9, 0.95], "eps": 1.0e-8}},
    "lr_decay_style": "cosine",
    "warmup": 0.2,
    "min_lr": 0.001,
    "gradient_clipping": 0.5,
    "train_batch_size": 8,
    "precision": "fp32",
    "tokenizer_type": "CharLevelTokenizer",
    "split": "90,10,0",
    "eval_interval": 1000,
    "eval_iters": 2,
    "log_interval": 1,
    "num_workers": 0,
}


@dataclass(frozen=True)
class TrainedRun:
    """One run of `deepy.py`: its folder, its exit code and what it printed."""

    directory: Path
    exit_code: int
    printed: str

    @property
    def losses(self) -> list[float]:
        """Training losses by iteration; of iterations trained twice, the later."""
        return [record["loss"] for _, record in sorted(self.steps.items())]

    @property
    def steps(self) -> dict[int, dict[str, Any]]:
        """The metrics of every training step, by iteration."""
        lines = (self.directory / "logs" / "metrics.jsonl").read_text().splitlines()
        return {record["iteration"]: record for record in map(json.loads, lines) if "loss" in record}


def write_config(directory: Path, data: Path, **changes: Any) -> Path:
    """A config file in `directory` for a run whose logs and checkpoints lie there too."""
    directory.mkdir(parents=True, exist_ok=True)
    places = {
        "data_path": str(data),
        "log_dir": str(directory / "logs"),
        "save": str(directory / "checkpoints"),
        "load": str(directory / "checkpoints"),
        "load_if_exists": True,
    }
    path = directory / "config.yml"
    path.write_text(yaml.safe_dump({**SMALL, **places, **changes}))
    return path


def deepy_command(script: str, *words: object) -> list[str]:
    """The command line of a run."""
    return [sys.executable, str(REPOSITORY / "deepy.py"), script, *map(str, words)]


ON_CPU = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
"""Layouts of several processes are tested on the CPU, also where there is one GPU."""


def start_deepy(script: str, *words: object, environment: Mapping[str, str] = ON_CPU) -> subprocess.Popen[str]:
    """Start `deepy.py SCRIPT WORDS...` away from the terminal's signals; both its outputs are one."""
    return subprocess.Popen(
        deepy_command(script, *words),
        cwd=REPOSITORY,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run_deepy(
    directory: Path, script: str, *words: object, environment: Mapping[str, str] = ON_CPU, timeout: float = 240
) -> TrainedRun:
    """Run `deepy.py SCRIPT WORDS...` to its end; one that takes longer than `timeout` seconds is killed and fails the test."""
    with start_deepy(script, *words, environment=environment) as process:
        try:
            printed, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return TrainedRun(directory, process.returncode, printed)


def train(directory: Path, data: Path, **changes: Any) -> TrainedRun:
    """Train a small model in `directory`; fails the test when the run fails."""
    run = run_deepy(directory, "train.py", write_config(directory, data, **changes))
    assert run.exit_code == 0, run.printed
    return run
