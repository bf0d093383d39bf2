"""Cutting and dividing hyper-rectangles."""

from __future__ import annotations

import random

import torch

from megatron.checkpointing.rectangles import Offer, Rectangle, divide, overlap, subtract, tiles
from tests.unit.checkpointing.fakes import random_cut


def paint(shape: tuple[int, ...], rectangles: list[Rectangle]) -> torch.Tensor:
    """How often each element of the shape is covered."""
    counts = torch.zeros(shape, dtype=torch.int64)
    for rectangle in rectangles:
        counts[tuple(slice(a, b) for a, b in zip(rectangle.start, rectangle.stop, strict=True))] += 1
    return counts


def random_rectangle(shape: tuple[int, ...], dice: random.Random) -> Rectangle:
    start = tuple(dice.randrange(size) for size in shape)
    return Rectangle(start, tuple(dice.randint(1, size - first) for first, size in zip(start, shape, strict=True)))


def test_a_rectangle_minus_another_is_covered_once_outside_the_hole_and_never_inside() -> None:
    dice = random.Random(1)
    for _ in range(300):
        shape = tuple(dice.randint(1, 6) for _ in range(dice.randint(0, 4)))
        first, hole = random_rectangle(shape, dice), random_rectangle(shape, dice)
        rest = subtract(first, hole)
        expected = paint(shape, [first]) * (1 - paint(shape, [hole]))
        assert torch.equal(paint(shape, rest), expected)
        assert len(rest) <= max(2 * len(shape), 1)


def test_the_overlap_is_what_both_cover() -> None:
    dice = random.Random(2)
    for _ in range(300):
        shape = tuple(dice.randint(1, 6) for _ in range(dice.randint(0, 4)))
        first, second = random_rectangle(shape, dice), random_rectangle(shape, dice)
        common = overlap(first, second)
        assert torch.equal(paint(shape, [common] if common else []), paint(shape, [first]) * paint(shape, [second]))


def test_overlapping_offers_are_divided_so_that_every_element_has_one_writer_that_holds_it() -> None:
    dice = random.Random(3)
    for _ in range(200):
        shape = tuple(dice.randint(1, 8) for _ in range(dice.randint(0, 3)))
        offers = [
            Offer(dice.randrange(4), part)
            for _ in range(dice.randint(1, 3))
            for part in random_cut(shape, dice)
            if part.volume
        ]
        shares = divide(offers, {})
        assert torch.equal(paint(shape, [share.rectangle for share in shares]), torch.ones(shape, dtype=torch.int64))
        for share in shares:
            assert any(offer.rank == share.rank and offer.rectangle.contains(share.rectangle) for offer in offers)


def test_equal_copies_are_spread_over_the_ranks_that_hold_them() -> None:
    load: dict[int, int] = {}
    for _ in range(4):
        divide([Offer(rank, Rectangle((0,), (10,))) for rank in range(4)], load)
    assert load == {0: 10, 1: 10, 2: 10, 3: 10}


def test_tiles_cover_a_rectangle_once_and_are_as_small_as_asked() -> None:
    dice = random.Random(4)
    for _ in range(200):
        shape = tuple(dice.randint(1, 8) for _ in range(dice.randint(0, 4)))
        rectangle, limit = random_rectangle(shape, dice), dice.randint(1, 40)
        parts = tiles(rectangle, limit)
        assert torch.equal(paint(shape, parts), paint(shape, [rectangle]))
        assert all(part.volume <= limit for part in parts)
    assert [part.size for part in tiles(Rectangle((2, 3), (5, 10)), 25)] == [(1, 10), (2, 10), (2, 10)]


def test_thin_slices_of_many_ranks_are_divided_in_near_linear_time() -> None:
    offers = [Offer(rank, Rectangle((rank * 4, 0), (4, 64))) for rank in range(20_000)]
    assert len(divide(offers, {})) == len(offers)  # seconds, not hours
