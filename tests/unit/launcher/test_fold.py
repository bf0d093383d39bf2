"""What generates runs one copy of the model on its tensor ranks, however it was trained."""

from __future__ import annotations

from megatron.launcher.fold import fold_layout
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.reading.values import ConfigValues
from tests.unit.neox_arguments.minimal import MINIMAL

TRAINED = {
    **MINIMAL,
    "pipe_parallel_size": 2,
    "context_parallel_size": 2,
    "model_parallel_size": 2,
    "train_micro_batch_size_per_gpu": 3,
    "train_batch_size": 24,
}


def test_stages_context_ranks_and_copies_are_folded_away() -> None:
    values, line = fold_layout(ConfigValues.from_dict(TRAINED), "generate.py")
    args = NeoXArgs.from_values(values, world_size=2)
    assert (args.pipeline_stages, args.context_parallel_size, args.model_parallel_size) == (1, 1, 2)
    assert (args.data_parallel_size, args.train_micro_batch_size_per_gpu, args.num_gpus) == (1, 3, 2)
    assert line is not None
    assert "pipe_parallel_size 0 on 2 processes" in line


def test_training_keeps_its_layout() -> None:
    values = ConfigValues.from_dict(TRAINED)
    assert fold_layout(values, "train.py") == (values, None)
