"""Every configuration in `configs/`, shrunk but with every feature and the kind of its layout kept, trains for real - or is refused
for exactly what it says is not built.

Each runs in a world of its own of forked ranks, on a character-level text; files that shrink to the same configuration train once. One goes
through `deepy.py` itself.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

import tests.deepspeed_world  # noqa: F401  imports DeepSpeed once, before ranks are forked
from megatron.errors import ConfigError
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.reading.values import ConfigValues, Origin
from megatron.neox_arguments.shrinking.comparable import MORE_ROWS
from megatron.neox_arguments.shrinking.shrink import shrink
from megatron.training.pretrain import pretrain
from tests.end_to_end.runs import TrainedRun, run_deepy
from tests.shipped import FILES, features_not_built, header_of, read_alone, read_shipped
from tests.worlds import run_world

ELSEWHERE = ("save", "load", "tensorboard_dir", "vocab_file", "merge_file")
PATH_LISTS = tuple(f"{part}_data_{kind}" for part in ("train", "valid", "test") for kind in ("paths", "weights"))
UNIFORM = math.log(512)
"""Loss of a model that finds all 512 entries of the character vocabulary equally likely."""


@dataclass(frozen=True)
class Trained:
    """What a run left behind: the last iteration, and the records of metrics.jsonl that hold a training loss."""

    iteration: int
    steps: tuple[dict[str, Any], ...]


TRANSFORMER_ENGINE = "requirements-transformer-engine.txt"
Train = Callable[[ConfigValues], Trained]


def place(values: ConfigValues, data: Path) -> ConfigValues:
    """The values with the test's tokenizer and data, and without the places of other machines."""
    here = {
        **dict.fromkeys((*ELSEWHERE, *PATH_LISTS)),
        "tokenizer_type": "CharLevelTokenizer",
        "vocab_size": MORE_ROWS if values.value("vocab_size") else None,
        "data_path": str(data),
        "split": "90,10,0",
        "num_workers": 0,
    }
    for key, value in here.items():
        values = values.with_value([key], value, Origin("test"))
    return values


def train_rank(rank: int, args: NeoXArgs) -> int:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # several ranks are tested on the CPU, also where there is one GPU
    return pretrain(args).state.iteration


@pytest.fixture(scope="module")
def train_once(tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Trains a configuration unless an equal one was trained before."""
    done: dict[str, Trained] = {}

    def train(values: ConfigValues) -> Trained:
        args = NeoXArgs.from_values(values.with_value(["log_dir"], "logs", Origin("test")))
        key = json.dumps(args.to_dict(), sort_keys=True)
        if key not in done:
            logs = tmp_path_factory.mktemp("run")
            args = args.model_copy(update={"log_dir": str(logs)})
            iterations = run_world(args.global_num_gpus, train_rank, args, timeout_seconds=60)
            assert len(set(iterations)) == 1
            records = map(json.loads, (logs / "metrics.jsonl").read_text().splitlines())
            done[key] = Trained(iterations[0], tuple(record for record in records if "loss" in record))
        return done[key]

    return train


def assert_trained(steps: Sequence[dict[str, Any]]) -> None:
    assert [step["iteration"] for step in steps] == [1, 2, 3, 4]
    assert all(math.isfinite(step["loss"]) for step in steps)
    trained = [step for step in steps if not step["skipped"]]  # a dynamic loss scale may be too large at first
    assert trained
    assert all(math.isfinite(step["grad_norm"]) for step in trained)
    # small_init at a width of 32 gives logits of variance 0.4, so ln 512 + 0.2 is expected; the logits of about 12 frequent characters
    # scatter their mean by 0.18. Three deviations of that to both sides.
    assert steps[0]["loss"] == pytest.approx(UNIFORM, abs=0.75)


@pytest.mark.parametrize("name", FILES)
def test_a_shipped_configuration_trains_or_is_refused_for_what_it_says(
    name: str, small_data: Path, train_once: Train
) -> None:
    alone, combined = shrink(read_alone(name)), shrink(read_shipped(name))
    missing = features_not_built(alone)
    assert missing == set(header_of(name).not_built)
    if missing:
        assert_refused_for(missing, alone)
    if not features_not_built(combined):
        placed = place(combined, small_data)
        if asks_for_transformer_engine(placed) and find_spec("transformer_engine") is None:
            assert_asks_for(TRANSFORMER_ENGINE, placed)
        else:
            assert_trained(train_once(placed).steps)


def asks_for_transformer_engine(values: ConfigValues) -> bool:
    return any(key.startswith("te_") and value is True for key, value in values.values.items())


def assert_asks_for(requirement: str, values: ConfigValues) -> None:
    with pytest.raises(ConfigError, match=f"-r requirements/{requirement}"):
        NeoXArgs.from_values(values.with_value(["user_script"], "train.py", Origin("test")))


def assert_refused_for(features: set[str], values: ConfigValues) -> None:
    with pytest.raises(ConfigError) as caught:
        NeoXArgs.from_values(values.with_value(["load"], None, Origin("test")))
    problems = caught.value.problems
    assert len(problems) == len(features)
    assert all(any(f"{feature} is not supported yet" in problem for problem in problems) for feature in features)


def test_gpt_neox_20b_trains_through_deepy_on_2_x_2_processes(tmp_path: Path, small_data: Path) -> None:
    small = place(shrink(read_shipped("20B.yml")), small_data)
    assert small.values["num_gpus"] == 4
    config = tmp_path / "small.yml"
    config.write_text(yaml.safe_dump({**small.values, "log_dir": str(tmp_path / "logs")}))

    done = run_deepy(tmp_path, "train.py", config)
    assert done.exit_code == 0, done.printed
    assert_trained([step for _, step in sorted(TrainedRun(tmp_path, 0, "").steps.items())])
