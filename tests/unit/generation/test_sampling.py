"""Sampling follows its definitions."""

from __future__ import annotations

import pytest
import torch

from megatron.generation.sampling import (
    SamplingSettings,
    at_quantile,
    choose_tokens,
    draws_of,
    keep_top_k,
    keep_top_p,
)

LOGITS = torch.tensor([[0.5, 0.2, 0.2, 0.1], [0.1, 0.1, 0.7, 0.1]]).log()


def kept(logits: torch.Tensor) -> list[list[int]]:
    return [row.isfinite().nonzero().flatten().tolist() for row in logits]


def draw(settings: SamplingSettings, count: int = 4000) -> torch.Tensor:
    rows = choose_tokens(LOGITS[:1].expand(count, -1), settings, [draws_of(0, row) for row in range(count)])
    return torch.bincount(rows, minlength=4) / count


def test_temperature_zero_is_greedy() -> None:
    assert choose_tokens(LOGITS, SamplingSettings(), []).tolist() == [0, 2]


def test_top_k_keeps_the_k_largest() -> None:
    assert kept(keep_top_k(LOGITS, 1)) == [[0], [2]]
    assert kept(keep_top_k(LOGITS, 99)) == [[0, 1, 2, 3], [0, 1, 2, 3]]


def test_top_p_keeps_the_smallest_set_that_reaches_the_mass() -> None:
    assert kept(keep_top_p(LOGITS, 0.45)) == [[0], [2]]
    assert kept(keep_top_p(LOGITS, 0.65)) == [[0, 1], [2]]
    assert len(kept(keep_top_p(LOGITS, 0.85))[0]) == 3


def test_samples_follow_the_distribution() -> None:
    torch.testing.assert_close(draw(SamplingSettings(temperature=1.0)), LOGITS[0].exp(), atol=0.03, rtol=0)


def test_temperature_sharpens_the_distribution() -> None:
    expected = (LOGITS[0] / 0.5).softmax(-1)
    torch.testing.assert_close(draw(SamplingSettings(temperature=0.5)), expected, atol=0.03, rtol=0)


def test_sampling_never_leaves_the_filtered_set() -> None:
    frequencies = draw(SamplingSettings(temperature=1.0, top_k=3, top_p=0.6))
    assert frequencies[3] == 0
    assert frequencies[0] > 0.6


def test_the_same_seed_gives_the_same_tokens() -> None:
    settings = SamplingSettings(temperature=1.0, top_p=0.9)
    assert torch.equal(draw(settings), draw(settings))


@pytest.mark.parametrize("temperature", [1e-9, 1e-38, 1e-40, 5e-324])
def test_near_temperature_0_the_most_likely_token_is_taken(temperature: float) -> None:
    logits = torch.tensor([[1.0, -2.0, 9.0, 8.9]])
    for filters in ({}, {"top_k": 3}, {"top_p": 0.9}):
        settings = SamplingSettings(temperature, **filters)
        assert [choose_tokens(logits, settings, [draws_of(0, n)]).item() for n in range(3)] == [2, 2, 2]


@pytest.mark.parametrize(("uniform", "token"), [(0.0, 1), (0.25, 1), (0.5, 3), (0.75, 3), (1.0, 3)])
def test_a_token_without_probability_is_never_taken(uniform: float, token: int) -> None:
    probabilities, wanted = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]]), torch.tensor([uniform], dtype=torch.float64)
    assert at_quantile(probabilities, wanted).tolist() == [token]
    assert at_quantile(3 * probabilities, wanted).tolist() == [token], "a sum that is not 1"


def test_the_least_likely_of_many_tokens_are_not_lost_in_the_sum() -> None:
    probabilities = torch.tensor([[1.0] + [1e-9] * 1000])
    assert at_quantile(probabilities, torch.tensor([1 - 5e-7], dtype=torch.float64)).item() == pytest.approx(501, abs=2)


def test_the_random_numbers_of_two_samples_are_never_the_same() -> None:
    assert draws_of(1, 11).random() != draws_of(11, 1).random()
