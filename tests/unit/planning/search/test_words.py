"""A layout in the spellings of the config, and no word too many."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from megatron.neox_arguments.reading.values import ConfigValues
from megatron.planning.layout import Layout
from megatron.planning.search.words import words_for

GIVEN = Layout(pipeline=2, data=2, tensor=2, zero_stage=1, micro_batch=4, accumulation=8)


def words(layout: Layout, given: Layout | None = GIVEN, **config: Any) -> set[str]:
    return set(words_for(layout, values=ConfigValues.from_dict({"train_batch_size": 64, **config}), given=given))


def test_the_layout_of_the_config_needs_no_words() -> None:
    assert words(GIVEN) == set()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"pipeline": 0, "data": 4, "accumulation": 4}, {"pipe_parallel_size=0", "gradient_accumulation_steps=4"}),
        ({"tensor": 4, "data": 1, "accumulation": 16}, {"model_parallel_size=4", "gradient_accumulation_steps=16"}),
        ({"sequence_parallel": True}, {"sequence_parallel=true"}),
        ({"recompute": True}, {"checkpoint_activations=true"}),
        ({"zero_stage": 2}, {"zero_optimization.stage=2"}),
        ({"micro_batch": 8, "accumulation": 4}, {"train_micro_batch_size_per_gpu=8", "gradient_accumulation_steps=4"}),
    ],
    ids=lambda value: " ".join(sorted(value)),
)
def test_only_what_differs_is_said(change: dict[str, Any], expected: set[str]) -> None:
    assert words(replace(GIVEN, **change)) == expected


def test_the_spellings_of_the_config_are_used() -> None:
    other = replace(GIVEN, zero_stage=3, micro_batch=2, accumulation=16)
    assert words(other, batch_size=4, zero_stage=1) == {
        "batch_size=2",
        "zero_stage=3",
        "gradient_accumulation_steps=16",
    }
    assert "zero_optimization.stage=3" in words(other, zero_optimization={"overlap_comm": True})
    assert {"zero_stage=3", "zero_optimization.stage=3"} <= words(other, zero_stage=1, zero_optimization={"stage": 1})


def test_everything_is_said_when_the_layout_of_the_config_is_not_legal() -> None:
    assert words(GIVEN, given=None) == {
        "pipe_parallel_size=2",
        "model_parallel_size=2",
        "sequence_parallel=false",
        "zero_optimization.stage=1",
        "train_micro_batch_size_per_gpu=4",
        "gradient_accumulation_steps=8",
        "checkpoint_activations=false",
    }


def test_context_ranks_are_said_again_where_the_config_has_some() -> None:
    cut = replace(GIVEN, context=2)
    assert "context_parallel_size=2" in words(cut, given=None, context_parallel_size=2)
    assert "context_parallel_size=1" in words(GIVEN, given=None, context_parallel_size=8)
    assert words(cut, given=cut, context_parallel_size=2) == set()


def test_a_config_without_any_batch_size_gets_one() -> None:
    assert words(GIVEN, train_batch_size=None) == {"train_micro_batch_size_per_gpu=4"}
