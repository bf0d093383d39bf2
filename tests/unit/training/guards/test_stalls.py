"""Who holds a run up: told from two readings of the heartbeats."""

from __future__ import annotations

from megatron.training.guards.heartbeats import Beat, Progress
from megatron.training.guards.stalls import answering, describe_stall

COMPUTING = Progress(7, 1, "computing iteration 8")
READING = Progress(7, 0, "reading the batch of iteration 8")


def test_a_rank_that_gives_no_sign_is_named_with_what_it_last_did() -> None:
    before = {0: Beat(4, COMPUTING), 1: Beat(9, READING)}
    now = {0: Beat(5, COMPUTING), 1: Beat(9, READING)}
    text = describe_stall(before, now, size=3)
    assert "rank 1 does not answer" in text
    assert "last it was reading the batch of iteration 8" in text
    assert "rank 2 never gave a sign of life" in text
    assert answering(before, now) == [0]


def test_ranks_that_answer_and_are_behind_are_named() -> None:
    now = {0: Beat(5, COMPUTING), 1: Beat(5, READING), 2: Beat(5, COMPUTING)}
    assert describe_stall({}, now, size=3) == (
        "rank 1 lagged behind, reading the batch of iteration 8, while others were computing iteration 8"
    )


def test_ranks_at_the_same_place_are_left_to_their_stacks() -> None:
    now = dict.fromkeys(range(2), Beat(5, COMPUTING))
    assert "all ranks answer and are computing iteration 8" in describe_stall({}, now, size=2)


def test_progress_travels_as_text() -> None:
    odd = Progress(3, 2, "a | b")
    assert Progress.decode(odd.encode()) == odd
