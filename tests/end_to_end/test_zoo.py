"""Published configurations, shrunk in size but with every feature and their layout's kind kept, train for real."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.end_to_end.runs import SMALL, TrainedRun, run_deepy

SHRINK = {
    "num_layers": 4,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "seq_length": 32,
    "max_position_embeddings": 32,
    "train_iters": 3,
    "lr_decay_iters": 3,
    "train_micro_batch_size_per_gpu": 2,
    "gradient_accumulation_steps": 2,
    **{
        key: SMALL[key]
        for key in ("tokenizer_type", "split", "eval_interval", "eval_iters", "log_interval", "num_workers")
    },
}

ZOO: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "Pythia-70M": (("configs/pythia/70M.yml",), {"num_gpus": 1, "attention_config": [[["flash"], 4]]}),
    "20B": (("configs/20B.yml",), {"num_gpus": 4, "pipe_parallel_size": 2, "model_parallel_size": 2}),
    "Llama-2-7B": (
        ("configs/llama2/7B.yml", "configs/llama/train_config.yml"),
        {"num_gpus": 1, "intermediate_size": 256, "mlp_multiple_of": 8},
    ),
}


@pytest.mark.parametrize("name", ZOO)
def test_a_published_configuration_trains(name: str, tmp_path: Path, reference: Path, small_data: Path) -> None:
    zoo = json.loads((reference / "model_zoo.json").read_text())
    files, changes = ZOO[name]
    paths = [write(tmp_path / f"{number}.yml", zoo[file]) for number, file in enumerate(files)]
    places = {
        "data_path": str(small_data),
        "log_dir": str(tmp_path / "logs"),
        "save": None,
        "load": None,
        "tensorboard_dir": None,
    }
    paths.append(write(tmp_path / "shrunk.yml", {**SHRINK, **places, **changes}))

    done = run_deepy(tmp_path, "train.py", *paths, "vocab_file=null", "hostfile=null")
    assert done.exit_code == 0, done.printed
    losses = TrainedRun(tmp_path, 0, "").losses
    assert len(losses) == 3
    # Small initial weights predict nearly uniformly over the 512 characters.
    assert losses[0] == pytest.approx(math.log(512), abs=0.5)


def write(path: Path, settings: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(settings))
    return path
