"""What generates runs one copy of the model in its tensor- and pipeline-parallel layout, however many copies trained it."""

from __future__ import annotations

from typing import Any

import pytest

from megatron.launcher.fold import fold_layout, with_fewer_stages
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.conflict import Conflict
from megatron.neox_arguments.reading.values import ConfigValues
from tests.unit.neox_arguments.minimal import MINIMAL

TRAINED = {
    **MINIMAL,
    "pipe_parallel_size": 2,
    "context_parallel_size": 2,
    "model_parallel_size": 2,
    "train_micro_batch_size_per_gpu": 3,
    "train_batch_size": 24,
    "rampup_batch_size": [12, 12, 100],
}


def fold(**changes: Any) -> tuple[NeoXArgs, str]:
    values, line = fold_layout(ConfigValues.from_dict({**TRAINED, **changes}), "generate.py")
    assert line is not None
    return NeoXArgs.from_values(values, world_size=values.value("num_gpus") * values.value("num_nodes")), line


def test_context_ranks_and_copies_are_folded_away_and_stages_stay() -> None:
    args, line = fold()
    assert (args.pipeline_stages, args.context_parallel_size, args.model_parallel_size) == (2, 1, 2)
    assert (args.data_parallel_size, args.train_micro_batch_size_per_gpu) == (1, 3)
    assert (args.num_nodes, args.num_gpus) == (1, 4)
    assert "4 processes: 2 pipeline stages x 2 tensor-parallel (pipe_parallel_size=0" in line


@pytest.mark.parametrize("stages", [0, 1])
def test_a_pipeline_is_folded_on_request(stages: int) -> None:
    args, line = fold(pipe_parallel_size=stages)
    assert (args.pipeline_stages, args.num_gpus) == (1, 2)
    assert line == "generate.py runs one copy of the model on 2 processes"


@pytest.mark.parametrize(("given", "expected"), [(2, (2, 2)), (4, (1, 4)), (8, (1, 4)), (3, (1, 4))])
def test_a_copy_takes_as_many_machines_as_it_fills(given: int, expected: tuple[int, int]) -> None:
    args, _ = fold(num_gpus=given, num_nodes=4)
    assert (args.num_nodes, args.num_gpus) == expected
    alone, _ = fold(num_gpus=given)
    assert (alone.num_nodes, alone.num_gpus) == (1, 4)


@pytest.mark.parametrize("script", ["train.py", "eval.py"])
def test_what_trains_or_evaluates_keeps_its_layout(script: str) -> None:
    values = ConfigValues.from_dict(TRAINED)
    assert fold_layout(values, script) == (values, None)


def test_too_few_devices_for_the_pipeline_are_told_with_the_way_out() -> None:
    conflict = Conflict(("num_gpus",), "this machine shows 1 accelerator; set it to 1")
    told = with_fewer_stages(conflict, ConfigValues.from_dict(TRAINED), "generate.py")
    assert told.keys == ("pipe_parallel_size",)
    assert "needs 4 processes, and this machine shows 1 accelerator; set it to 0, which needs 2" in told.reason
    assert with_fewer_stages(conflict, ConfigValues.from_dict(TRAINED), "train.py") is conflict
    unfolded = ConfigValues.from_dict({**TRAINED, "pipe_parallel_size": 0})
    assert with_fewer_stages(conflict, unfolded, "generate.py") is conflict
