"""Whole runs that evaluate on tasks while they train: the numbers of training stay to the bit, in every layout tasks get the same scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import lm_eval.evaluator  # noqa: F401  forked ranks have it then
import numpy as np
import pytest
import torch

from megatron.data.indexed_dataset import IndexedDatasetWriter
from megatron.initialize import join_world
from megatron.neox_arguments import NeoXArgs
from megatron.training.loop import train
from megatron.training.setup import build_run
from tests import deepspeed_world  # noqa: F401  prepares torch and DeepSpeed for forked ranks
from tests.evaluation_tasks import write_tasks
from tests.worlds import run_world

CONFIG = {
    "num_layers": 2,
    "hidden_size": 16,
    "num_attention_heads": 4,
    "seq_length": 32,
    "max_position_embeddings": 32,
    "pos_emb": "rotary",
    "train_batch_size": 8,
    "train_iters": 4,
    "lr": 1e-2,
    "split": "80,20,0",
    "eval_interval": 2,
    "eval_iters": 1,
    "num_workers": 0,
    "tokenizer_type": "CharLevelTokenizer",
    "global_num_gpus": 4,
    "log_interval": 1,
    "char_level_ppl": True,
}
DROPOUT = {"hidden_dropout": 0.1, "attention_dropout": 0.1}
LAYOUTS: dict[str, dict[str, Any]] = {
    "pipe 2 x context 2": {"pipe_parallel_size": 2, "context_parallel_size": 2},
    "data 2 x tensor 2 in sequence, stage 3": {
        "model_parallel_size": 2,
        "sequence_parallel": True,
        "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
    },
}
TASKS = {"eval_tasks": ["small_tag"], "eval_tasks_interval": 2}


class Trained(NamedTuple):
    """What metrics.jsonl says."""

    records: list[dict[str, Any]]

    @property
    def steps(self) -> list[tuple[int, float, float]]:
        return [(each["iteration"], each["loss"], each["grad_norm"]) for each in self.records if "loss" in each]

    def of(self, prefix: str) -> dict[int, dict[str, float]]:
        """The values whose keys begin with this, by iteration."""
        found: dict[int, dict[str, float]] = {}
        for each in self.records:
            values = {key: value for key, value in each.items() if key.startswith(prefix)}
            if values:
                found.setdefault(each["iteration"], {}).update(values)
        return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Trained]:
    directory = tmp_path_factory.mktemp("runs")
    write_data(directory / "data")
    write_tasks(directory / "tasks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", directory / "cache")
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        return run_world(4, train_all, directory)[0]


def write_data(prefix: Path) -> None:
    text = b"import def return class self lambda yield pass "
    with IndexedDatasetWriter(prefix, dtype=np.uint16) as writer:
        for begin in range(40):
            writer.add_document(np.array([*(text[begin:] + text), 0]))


def train_all(rank: int, directory: Path) -> dict[tuple[str, str], Trained]:
    include = {"eval_include_path": str(directory / "tasks")}
    return {
        (name, kind): train_one(directory, f"{number} {kind}", **{**layout, **DROPOUT, **extra})
        for number, (name, layout) in enumerate(LAYOUTS.items())
        for kind, extra in (("with", {**TASKS, **include}), ("without", {}))
    }


def train_one(directory: Path, name: str, **changes: Any) -> Trained:
    log_dir = directory / name
    places = {"log_dir": str(log_dir), "data_path": str(directory / "data")}
    args = NeoXArgs.from_dict({**CONFIG, **places, **changes})
    run, state = build_run(args, join_world(args))
    train(run, state)
    run.reporter.close()
    torch.distributed.barrier()
    return Trained([json.loads(line) for line in (log_dir / "metrics.jsonl").read_text().splitlines()])


@pytest.mark.parametrize("name", LAYOUTS)
def test_training_with_tasks_is_training_without_to_the_bit(name: str, runs: dict[tuple[str, str], Trained]) -> None:
    with_tasks, without = runs[name, "with"], runs[name, "without"]
    assert len(with_tasks.steps) == 4
    assert with_tasks.steps == without.steps
    assert with_tasks.of("validation") == without.of("validation")
    assert not without.of("tasks")


@pytest.mark.parametrize("name", LAYOUTS)
def test_tasks_run_at_their_interval(name: str, runs: dict[tuple[str, str], Trained]) -> None:
    found = runs[name, "with"].of("tasks/")
    assert list(found) == [2, 4]
    assert found[2].keys() >= {
        "tasks/small_choice/acc",
        "tasks/small_texts/bits_per_byte",
        "tasks/small_words/exact_match",
    }
    assert found[2] != found[4]


def test_layouts_give_the_same_scores(runs: dict[tuple[str, str], Trained]) -> None:
    one, other = (runs[name, "with"].of("tasks/") for name in LAYOUTS)
    for iteration, values in one.items():
        assert values == pytest.approx(other[iteration], rel=1e-4)
    one, other = (runs[name, "with"].of("validation") for name in LAYOUTS)
    for iteration, values in one.items():
        assert values == pytest.approx(other[iteration], rel=1e-5)
        assert values["validation/char_perplexity"] == pytest.approx(values["validation/perplexity"])
