"""Bits follow from numbers alone, as an oracle in Python's integers says, and look random in every direction in which masks lie."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from megatron.mpu.random_bits import dropped, mixed, numbered_words, place_word, position_words, sample_keys
from megatron.mpu.shard import stable_seed

CPU = torch.device("cpu")
ALL = 2**32
LIMIT = 5.0
"""Standard deviations: a fair coin goes beyond them once in two million times."""


def unsigned(words: Tensor) -> list[int]:
    return [word % ALL for word in words.flatten().tolist()]


def mix_slowly(word: int) -> int:
    word ^= word >> 16
    word = word * 0x7FEB352D % ALL
    word ^= word >> 15
    word = word * 0x846CA68B % ALL
    return word ^ word >> 16


def is_dropped(row: int, column: int, probability: float) -> bool:
    word = (row ^ column) * 0x7FEB352D % ALL
    word = (word ^ word >> 15) * 0x846CA68B % ALL
    return (word + 2**31) % ALL < probability * ALL  # words count from -2^31


def test_words_are_mixed_as_python_integers_mix_them() -> None:
    edges = [0, 1, -1, 2**31 - 1, -(2**31), 0x7FFF, 0xFFFF, 0x10000]
    words = torch.tensor([*edges, *range(1000, 1100)], dtype=torch.int32)
    assert unsigned(mixed(words)) == [mix_slowly(word) for word in unsigned(words)]
    assert words[:8].tolist() == edges, "what is given is not written to"
    assert unsigned(numbered_words(5, 4, CPU)) == [mix_slowly(number) for number in range(5, 9)]


def test_words_of_positions_have_all_bits_of_the_key_and_the_place_in_the_whole_sequence() -> None:
    keys = [stable_seed("a"), stable_seed("a") ^ 1 << 62, stable_seed("a") ^ 1]
    words = position_words(torch.tensor(keys), 3, 2)
    expected = [mix_slowly(mix_slowly(mix_slowly(at) ^ key % ALL) ^ key >> 32) for at in (3, 4) for key in keys]
    assert unsigned(words) == expected
    assert len(set(unsigned(words))) == 6


@pytest.mark.parametrize("probability", [2**-32, 0.1, 0.5, 0.999999, 1 - 2**-53])
def test_masks_are_those_of_python_integers(probability: float) -> None:
    rows, columns = numbered_words(0, 40, CPU), numbered_words(100, 50, CPU)
    expected = [is_dropped(row, column, probability) for row in unsigned(rows) for column in unsigned(columns)]
    assert dropped(rows, columns, probability).flatten().tolist() == expected


def test_keys_and_places_differ_and_are_the_same_everywhere() -> None:
    keys = torch.cat([sample_keys(range(9), seed=seed, step=step) for seed in (1, 2) for step in (0, 1)])
    assert len(set(keys.tolist())) == 36
    assert keys.min() >= 0
    assert keys[0] == sample_keys([0], seed=1, step=0)[0] == stable_seed("sample", 1, 0, 0)
    words = {place_word(kind, layer, place) for kind in "ab" for layer in range(50) for place in "cd"}
    assert len(words) == 200
    assert all(-(2**31) <= word < 2**31 for word in words)


def mask(*, step: int = 0, sample: int = 0, place: int = 0, probability: float = 0.5) -> Tensor:
    """bool [1024, 512]: positions of a sample, channels."""
    words = position_words(sample_keys([sample], seed=3, step=step), 0, 1024)[:, 0]
    return ~dropped(mixed(words ^ place_word(place)), numbered_words(0, 512, CPU), probability)


@pytest.mark.parametrize("probability", [0.01, 0.1, 0.5, 0.9])
def test_as_many_are_kept_as_should_be_in_all_in_each_row_and_in_each_column(probability: float) -> None:
    drawn = mask(probability=probability).double()
    for share in (drawn.mean().reshape(1), drawn.mean(0), drawn.mean(1)):
        deviation = math.sqrt(probability * (1 - probability) * share.numel() / drawn.numel())
        scores = (share - (1 - probability)) / deviation
        assert scores.abs().max() < LIMIT + 1  # the rarest counts have longer tails than a normal distribution
        if share.numel() > 1:
            assert abs(scores.square().sum() - share.numel()) < LIMIT * math.sqrt(2 * share.numel())  # chi-square


NEIGHBOURS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "the next channel": lambda one, _: one.roll(1, 1),
    "the channel 64 further": lambda one, _: one.roll(64, 1),
    "the next position": lambda one, _: one.roll(1, 0),
    "both": lambda one, _: one.roll((1, 1), (0, 1)),
    "the next sample": lambda _, probability: mask(sample=1, probability=probability),
    "the next step": lambda _, probability: mask(step=1, probability=probability),
    "the next layer": lambda _, probability: mask(place=1, probability=probability),
}


@pytest.mark.parametrize("probability", [0.1, 0.5])
@pytest.mark.parametrize("neighbour", NEIGHBOURS)
def test_neighbours_are_independent(neighbour: str, probability: float) -> None:
    """Chi-square over the four pairs of outcomes, whose chances are known: three degrees of freedom."""
    one = mask(probability=probability)
    other = NEIGHBOURS[neighbour](one, probability)
    counts = [((one == left) & (other == right)).sum() for left in (False, True) for right in (False, True)]
    chances = [probability**2, *2 * [probability * (1 - probability)], (1 - probability) ** 2]
    expected = torch.tensor(chances, dtype=torch.float64) * one.numel()
    assert ((torch.stack(counts) - expected) ** 2 / expected).sum() < 27  # beyond that once in 200000 times


def test_channels_do_not_go_together_in_any_pair() -> None:
    """All 512 channels against each other: no two are the same, or opposite, more often than chance has it."""
    drawn = mask().double() * 2 - 1
    products = (drawn.T @ drawn).fill_diagonal_(0) / math.sqrt(len(drawn))
    assert products.abs().max() < LIMIT + 1  # of 130000 pairs
    assert abs(products.square().mean() - 1) < 0.02


@pytest.mark.parametrize("bit", [0, 1, 15, 16, 31])
def test_every_bit_of_a_row_changes_half_of_its_mask(bit: int) -> None:
    rows = numbered_words(0, 1024, CPU)
    flipped = rows ^ (1 << bit if bit < 31 else -(2**31))
    columns = numbered_words(0, 512, CPU)
    changed = (dropped(mixed(rows), columns, 0.5) != dropped(mixed(flipped), columns, 0.5)).double().mean()
    assert abs(changed - 0.5) < LIMIT * math.sqrt(0.25 / (1024 * 512))
