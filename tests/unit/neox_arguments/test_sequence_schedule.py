"""Sequence lengths of a curriculum: DeepSpeed's for every step, as a pure function."""

from __future__ import annotations

from typing import Any

import pytest
from deepspeed.runtime.data_pipeline.curriculum_scheduler import CurriculumScheduler

from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.sequence_schedule import FullLength, sequence_schedule, tokens_before

SECTIONS: dict[str, dict[str, Any]] = {
    "linear": {"schedule_config": {"total_curriculum_step": 37, "difficulty_step": 8}},
    "square root": {
        "schedule_type": "fixed_root",
        "schedule_config": {"total_curriculum_step": 50, "difficulty_step": 8, "root_degree": 2},
    },
    "cube root": {
        "schedule_type": "fixed_root",
        "schedule_config": {"total_curriculum_step": 21, "difficulty_step": 16, "root_degree": 3},
    },
    "a start between two multiples": {
        "min_difficulty": 20,
        "schedule_config": {"total_curriculum_step": 9, "difficulty_step": 16},
    },
    "discrete": {
        "schedule_type": "fixed_discrete",
        "schedule_config": {"difficulty": [8, 24, 32, 128], "max_step": [5, 6, 20]},
    },
    "at once": {"schedule_config": {"total_curriculum_step": 1, "difficulty_step": 8}},
}


def arguments(section: dict[str, Any] | None, **changes: Any) -> NeoXArgs:
    complete = {"enabled": True, "min_difficulty": 8, "max_difficulty": 128, "schedule_type": "fixed_linear"}
    curriculum = {} if section is None else {"curriculum_learning": {**complete, **section}}
    config = {
        "num_layers": 1,
        "hidden_size": 8,
        "num_attention_heads": 1,
        "seq_length": 128,
        "train_iters": 100,
        "train_batch_size": 4,
    }
    return NeoXArgs.from_dict({**config, **curriculum, **changes})


@pytest.mark.parametrize("name", SECTIONS)
def test_lengths_are_those_of_deepspeed(name: str) -> None:
    args = arguments(SECTIONS[name])
    lengths, scheduler = sequence_schedule(args), CurriculumScheduler(args.curriculum_learning)
    expected = [scheduler.update_difficulty(step + 1) for step in range(100)]
    assert [lengths.length_of(step) for step in range(100)] == expected
    assert expected[-1] == 128


@pytest.mark.parametrize("name", SECTIONS)
@pytest.mark.parametrize("ramp", [None, [2, 1, 50]])
def test_tokens_are_counted_without_going_through_the_steps(name: str, ramp: list[int] | None) -> None:
    args = arguments(SECTIONS[name], rampup_batch_size=ramp, train_micro_batch_size_per_gpu=1)
    lengths = sequence_schedule(args)
    batches = [2] * 13 + [3] * 8 if ramp else []  # 26 samples, half of the ramp, then 24
    tokens = [(batches[step] if step < len(batches) else 4) * lengths.length_of(step) for step in range(100)]
    assert [tokens_before(args, step) for step in (0, 1, 12, 13, 14, 30, 100)] == [
        sum(tokens[:step]) for step in (0, 1, 12, 13, 14, 30, 100)
    ]


def test_without_a_curriculum_all_tokens_are_used() -> None:
    assert sequence_schedule(arguments(None)) == FullLength(128)
    assert sequence_schedule(arguments({"enabled": False})) == FullLength(128)
    assert tokens_before(arguments(None), 100) == 100 * 4 * 128
