"""Shares of about the same size, in the order in which things were given."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from megatron.checkpointing.balance import balanced


def test_things_are_shared_out_by_their_sizes() -> None:
    assert balanced({"e": 0, "b": 50, "c": 40, "d": 10, "a": 90}, 2) == [["d", "a"], ["e", "b", "c"]]
    assert balanced({"a": 1}, 3) == [["a"], [], []]
    assert balanced({}, 3) == [[], [], []]
    assert balanced({}, 0) == []


@given(st.lists(st.integers(0, 1000)), st.integers(1, 6))
def test_everything_is_in_one_share_and_none_exceeds_another_by_more_than_the_largest_thing(
    sizes: list[int], count: int
) -> None:
    shares = balanced(dict(enumerate(sizes)), count)
    assert sorted(number for share in shares for number in share) == list(range(len(sizes)))
    assert all(share == sorted(share) for share in shares)
    totals = [sum(sizes[number] for number in share) for share in shares]
    assert max(totals) - min(totals) <= max(sizes, default=0)
