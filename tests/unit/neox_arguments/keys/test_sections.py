from __future__ import annotations

from typing import Any

import pytest

from megatron.neox_arguments.deepspeed_config import build_deepspeed_config
from megatron.neox_arguments.keys.sections import CHECKED, CLOSED, LEGACY, SECTIONS, for_deepspeed, wrong_section_values
from tests.unit.neox_arguments.minimal import build, problem, problems


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        ("fp16", "enabled", "false", "expected true or false"),
        ("fp16", "loss_scale", -1, "must be at least 0"),
        ("fp16", "hysteresis", True, "expected a whole number"),
        ("bf16", "check_grad_overflow", 1, "expected true or false"),
        ("zero_optimization", "reduce_bucket_size", "many", "expected a whole number"),
        ("zero_optimization", "overlap_comm", "yes", "expected true or false"),
        ("data_types", "grad_accum_dtype", "fp23", "choose one of fp32, bf16, fp16"),
        ("comms_logger", "prof_ops", "all_reduce", "expected a list"),
        ("flops_profiler", "profile_step", -1, "must be at least 0"),
        ("tensorboard", "enabled", "on", "expected true or false"),
    ],
)
def test_a_wrong_value_within_a_section_is_told(section: str, key: str, value: Any, expected: str) -> None:
    found = problem(**{section: {key: value}})
    assert found.startswith(f'"{section}.{key}" is ')
    assert expected in found


def test_every_wrong_value_and_unknown_key_is_told_at_once() -> None:
    found = problems(
        zero_optimization={"stage": 1, "overlap_com": True, "reduce_scatter": 2}, csv_monitor={"enabled": 0}
    )
    assert [text.split(" ")[0].strip('":') for text in found] == [
        "zero_optimization.overlap_com",
        "zero_optimization.reduce_scatter",
        "csv_monitor.enabled",
    ]


def test_numbers_written_as_text_are_numbers_and_null_is_not_given() -> None:
    args = build(
        zero_optimization={"stage": "1", "reduce_bucket_size": "5e8", "sub_group_size": None, "overlap_comm": None}
    )
    zero = build_deepspeed_config(args)["zero_optimization"]
    assert zero["reduce_bucket_size"] == 500_000_000
    assert {"sub_group_size", "overlap_comm"} & set(zero) == set()


def test_keys_that_older_deepspeed_ignored_do_not_reach_deepspeed() -> None:
    for section, keys in LEGACY.items():
        assert keys <= set(SECTIONS[section].model_fields)
        assert for_deepspeed(section, dict.fromkeys(keys, True)) == {}


def test_sections_whose_values_are_checked_refuse_unknown_keys() -> None:
    assert set(CHECKED) <= set(CLOSED) <= set(SECTIONS)


def test_defaults_within_sections_are_values_that_these_take() -> None:
    for section, model in SECTIONS.items():
        defaults = {key: field.default for key, field in model.model_fields.items()}
        assert list(wrong_section_values(section, defaults)) == [], section
