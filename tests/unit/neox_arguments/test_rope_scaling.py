"""Scaled frequencies equal their formulas written another way, and the numbers that Hugging Face's functions give."""

from __future__ import annotations

import math
from typing import Any

import pytest

from megatron.components import ROPE_SCALINGS
from megatron.neox_arguments.rope_scaling import REQUIRED, defaults_of, scale

LLAMA_31 = {
    "type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
LLAMA_32 = {**LLAMA_31, "factor": 32.0}
LINEAR = {"type": "linear", "factor": 4.0}
QWEN_YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
OTHER_YARN = {
    "type": "yarn",
    "factor": 16.0,
    "original_max_position_embeddings": 4096,
    "beta_fast": 16,
    "beta_slow": 2,
    "attention_factor": 1.25,
}

# (width, base, section, magnitude, {pair: frequency}), recorded in fp32 from `transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS`
# of transformers 5.23.0: pairs at both ends and some of those between which it interpolates.
RECORDED: list[tuple[int, float, dict[str, Any], float, dict[int, float]]] = [
    (
        128,
        500000.0,
        LLAMA_31,
        1.0,
        {
            0: 1.0,
            16: 0.037606031,
            29: 0.0021665706,
            31: 0.00085675146,
            34: 0.00017850779,
            48: 6.6478697e-06,
            63: 3.0689259e-07,
        },
    ),
    (
        64,
        500000.0,
        LLAMA_32,
        1.0,
        {0: 1.0, 8: 0.037606031, 15: 0.001290548, 16: 0.00042955671, 17: 9.7082862e-05, 31: 9.4183065e-08},
    ),
    (128, 10000.0, LINEAR, 1.0, {0: 0.25, 16: 0.025, 32: 0.0024999999, 48: 0.00025000001, 63: 2.8869548e-05}),
    (
        128,
        1000000.0,
        QWEN_YARN,
        1.138629436111989,
        {
            0: 1.0,
            16: 0.031622779,
            24: 0.0053753215,
            28: 0.0018482766,
            36: 0.00017984115,
            48: 7.9056936e-06,
            63: 3.1023444e-07,
        },
    ),
    (
        64,
        10000.0,
        OTHER_YARN,
        1.25,
        {0: 1.0, 8: 0.1, 13: 0.021243555, 15: 0.0091679599, 17: 0.003593243, 19: 0.0011420946, 31: 8.3345094e-06},
    ),
]


def unscaled(width: int, base: float) -> list[float]:
    return [base ** (-2 * pair / width) for pair in range(width // 2)]


@pytest.mark.parametrize(("width", "base", "section", "magnitude", "expected"), RECORDED)
def test_scaled_frequencies_are_those_of_hugging_face(
    width: int, base: float, section: dict[str, Any], magnitude: float, expected: dict[int, float]
) -> None:
    rotation = scale(unscaled(width, base), base, section)
    assert rotation.magnitude == pytest.approx(magnitude, rel=1e-12)
    found = {pair: rotation.frequencies[pair] for pair in expected}
    assert found == pytest.approx(expected, rel=1e-6, abs=0)


def test_llama3_divides_by_the_factor_what_turns_less_than_once_in_the_original_context() -> None:
    frequencies = unscaled(128, 500000.0)
    for before, after in zip(frequencies, scale(frequencies, 500000.0, LLAMA_31).frequencies, strict=True):
        wavelength = 2 * math.pi / before
        if wavelength < 8192 / 4:
            assert after == before
        elif wavelength > 8192:
            assert after == pytest.approx(before / 8, rel=1e-12)
        else:
            part = (8192 / wavelength - 1) / 3
            assert after == pytest.approx((1 - part) * before / 8 + part * before, rel=1e-12)


def test_yarn_ramps_between_two_whole_pairs() -> None:
    base, width, section = 10000.0, 128, {"type": "yarn", "factor": 4, "original_max_position_embeddings": 4096}
    frequencies = unscaled(width, base)
    rotation = scale(frequencies, base, section)
    # Pair i turns 4096 base^(-i / 64) / (2 pi) times: 32 times for i = 20.94..., once for i = 45.03...
    first, last = 20, 46
    ratios = [after / before for before, after in zip(frequencies, rotation.frequencies, strict=True)]
    assert ratios[: first + 1] == pytest.approx([1.0] * (first + 1), rel=1e-12)
    assert ratios[last:] == pytest.approx([0.25] * (64 - last), rel=1e-12)
    steps = [ratios[i] - ratios[i + 1] for i in range(first, last)]
    assert steps == pytest.approx([0.75 / (last - first)] * (last - first), rel=1e-9)
    assert rotation.magnitude == pytest.approx(1.1386294361119891)


def test_a_factor_of_one_changes_nothing() -> None:
    frequencies = unscaled(32, 10000.0)
    for section in (LINEAR, LLAMA_31, QWEN_YARN):
        rotation = scale(frequencies, 10000.0, {**section, "factor": 1})
        assert rotation.frequencies == pytest.approx(frequencies, rel=1e-12)
        assert rotation.magnitude == 1.0


def test_contexts_shorter_than_every_wavelength_are_legal() -> None:
    # Both ends of the ramp fall on the first pair.
    rotation = scale(unscaled(16, 10000.0), 10000.0, {**QWEN_YARN, "original_max_position_embeddings": 4})
    assert rotation.frequencies[1:] == pytest.approx(
        [frequency / 4 for frequency in unscaled(16, 10000.0)[1:]], rel=1e-12
    )


def test_the_keys_of_a_type_are_the_parameters_of_its_function() -> None:
    assert [key for key, default in defaults_of("llama3").items() if default is REQUIRED] == [
        *("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    ]
    assert defaults_of("yarn")["beta_fast"] == 32
    assert all("factor" in defaults_of(name) for name in ROPE_SCALINGS)
