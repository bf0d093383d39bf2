"""Trains as `deepy.py train.py` does, but in ranks forked from this process: for what a run computes, where its start is tested elsewhere.

A rank that is started takes seconds of processor time before its first step, a forked one next to none.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import tests.deepspeed_world  # noqa: F401  imports DeepSpeed once, before ranks are forked
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.reading.load import read_ymls
from megatron.training.pretrain import pretrain
from tests.end_to_end.runs import TrainedRun, write_config
from tests.worlds import run_world


def train_forked(directory: Path, data: Path, **changes: Any) -> TrainedRun:
    """Train a small model in `directory`; fails the test when the run fails. What rank 0 prints is kept."""
    return go_on_forked(directory, write_config(directory, data, **changes))


def go_on_forked(directory: Path, config: Path) -> TrainedRun:
    """Train as `config` says, in `directory`."""
    values = read_ymls([str(config)])
    args = NeoXArgs.from_values(values, world_size=values.value("num_gpus"))
    printed = directory / "printed.txt"
    statuses = run_world(args.global_num_gpus, _train, args, printed)
    assert set(statuses) == {0}
    return TrainedRun(directory, 0, printed.read_text())


def _train(rank: int, args: NeoXArgs, printed: Path) -> int:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # several ranks are tested on the CPU, also where there is one GPU
    with (printed if rank == 0 else Path(os.devnull)).open("w") as file:
        sys.stdout = sys.stderr = file
        return pretrain(args).exit_status
