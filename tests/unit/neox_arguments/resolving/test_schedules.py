"""Schedules that a configuration may and may not have, beyond the golden cases; what DeepSpeed is not told of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.errors import ConfigError
from megatron.launcher.fold import fold_layout
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.batch_schedule import batch_schedule, least_batch
from megatron.neox_arguments.deepspeed_config import build_deepspeed_config
from megatron.neox_arguments.reading.values import ConfigValues

CONFIG: dict[str, Any] = {
    "num_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "seq_length": 32,
    "train_iters": 10,
    "global_num_gpus": 4,
}
CURRICULUM: dict[str, Any] = {
    "enabled": True,
    "min_difficulty": 8,
    "max_difficulty": 32,
    "schedule_config": {"total_curriculum_step": 5, "difficulty_step": 4},
}


def arguments(**changes: Any) -> NeoXArgs:
    return NeoXArgs.from_dict({**CONFIG, "train_micro_batch_size_per_gpu": 1, **changes})


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3), st.integers(1, 12), st.integers(1, 60), st.integers(1, 40))
def test_what_a_message_about_a_ramp_proposes_is_legal(micro: int, accumulation: int, first: int, step: int) -> None:
    changes = {"train_micro_batch_size_per_gpu": micro, "gradient_accumulation_steps": accumulation}
    try:
        args = arguments(**changes, rampup_batch_size=[first, step, 100])
    except ConfigError as error:
        proposed = json.loads(str(error).partition("; write ")[2].splitlines()[0])
        args = arguments(**changes, rampup_batch_size=proposed)
    row = micro * 4
    assert least_batch(args) % row == 0
    batches = [stage.batch for stage in batch_schedule(args).stages]
    assert batches == sorted(set(batches)) or len(set(batches)) == 1
    assert batches[-1] == args.train_batch_size
    assert all(batch % row == 0 for batch in batches)


@pytest.mark.parametrize(
    ("layout", "step", "legal"),
    [
        ({"context_parallel_size": 4}, 4, True),
        ({"context_parallel_size": 4}, 2, False),
        ({"model_parallel_size": 4}, 2, True),
        ({"model_parallel_size": 4, "sequence_parallel": True}, 2, False),
        ({"model_parallel_size": 2, "context_parallel_size": 2, "sequence_parallel": True}, 2, False),
        ({"model_parallel_size": 2, "context_parallel_size": 2, "sequence_parallel": True}, 4, True),
    ],
)
def test_lengths_divide_over_the_ranks_that_share_a_sequence(layout: dict[str, Any], step: int, legal: bool) -> None:
    schedule = {"total_curriculum_step": 5, "difficulty_step": step}
    section = {**CURRICULUM, "schedule_config": schedule}
    if legal:
        arguments(**layout, curriculum_learning=section)
        return
    with pytest.raises(ConfigError, match="ranks share each sequence"):
        arguments(**layout, curriculum_learning=section)


def test_a_section_that_is_off_is_not_looked_at() -> None:
    args = arguments(curriculum_learning={**CURRICULUM, "enabled": False, "max_difficulty": 99})
    assert args.curriculum_learning is not None


def test_null_is_not_given() -> None:
    arguments(curriculum_learning={**CURRICULUM, "schedule_type": None})
    with pytest.raises(ConfigError, match="a curriculum also needs min_difficulty; add"):
        arguments(curriculum_learning={**CURRICULUM, "min_difficulty": None})


def test_deepspeed_is_told_of_the_full_batch_and_of_no_curriculum() -> None:
    args = arguments(
        curriculum_learning=CURRICULUM,
        rampup_batch_size=[4, 4, 100],
        gradient_accumulation_steps=4,
        curriculum_seqlen=8,
    )
    config = build_deepspeed_config(args)
    assert (config["train_batch_size"], config["gradient_accumulation_steps"]) == (16, 4)
    assert not [key for key in config if "curriculum" in key or "data_efficiency" in key]


def test_text_is_generated_with_the_config_of_a_ramp() -> None:
    values = ConfigValues.from_dict({**CONFIG, "train_batch_size": 16, "rampup_batch_size": [4, 4, 100]})
    folded, _ = fold_layout(values, "generate.py")
    args = NeoXArgs.from_values(folded, world_size=1)
    assert (args.train_batch_size, args.rampup_batch_size) == (1, None)
