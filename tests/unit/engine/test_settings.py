"""The DeepSpeed configuration the engines run with."""

from __future__ import annotations

import torch
from torch import nn

from megatron.engine.settings import engine_settings
from megatron.neox_arguments import NeoXArgs
from megatron.neox_arguments.deepspeed_config import build_deepspeed_config
from tests.toy_model import TOY_CONFIG

PARAMETERS = [nn.Parameter(torch.zeros(3, 5)), nn.Parameter(torch.zeros(2))]


def settings_of(**config: object) -> dict:
    args = NeoXArgs.from_dict({**TOY_CONFIG, **config})
    return engine_settings(build_deepspeed_config(args), PARAMETERS)


def test_zero_is_always_on_and_its_buckets_hold_the_gradients_and_no_more() -> None:
    zero = settings_of(zero_optimization={"stage": 0, "reduce_bucket_size": 10})["zero_optimization"]
    assert zero["stage"] == 1
    assert zero["reduce_bucket_size"] == 10
    assert zero["allgather_bucket_size"] == 18  # 17 values, made even


def test_a_user_cannot_bring_stage_0_back() -> None:
    assert engine_settings({"zero_optimization": {"stage": 0}}, PARAMETERS)["zero_optimization"]["stage"] == 1
    assert engine_settings({}, PARAMETERS)["zero_optimization"]["stage"] == 1


def test_gradients_accumulate_in_fp32_in_every_precision() -> None:
    for precision in ("fp32", "fp16", "bfloat16"):
        assert settings_of(precision=precision)["data_types"]["grad_accum_dtype"] == "fp32"


def test_steps_that_are_not_finite_are_skipped_in_bf16_too() -> None:
    assert settings_of(precision="bfloat16")["bf16"]["check_grad_overflow"] is True


def test_deepspeed_reports_only_when_its_timings_are_wanted() -> None:
    assert settings_of()["steps_per_print"] is None
    assert settings_of()["timers"] == {"throughput": {"enabled": False}}, (
        "its timer waits for the device twice a micro-batch"
    )
    timed = settings_of(wall_clock_breakdown=True, steps_per_print=7)
    assert timed["steps_per_print"] == 7
    assert "timers" not in timed


def test_the_given_dictionary_is_left_as_it_is() -> None:
    base = {"zero_optimization": {"stage": 0}, "bf16": {"enabled": True}}
    engine_settings(base, PARAMETERS)
    assert base == {"zero_optimization": {"stage": 0}, "bf16": {"enabled": True}}
