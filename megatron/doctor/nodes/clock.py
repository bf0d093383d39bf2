"""How far two clocks are apart, from questions and answers that took a while."""

from __future__ import annotations

from collections.abc import Iterable


def skew_of(samples: Iterable[tuple[float, float, float]]) -> tuple[float, float]:
    """(seconds that their clock is ahead of ours, seconds of the round trip), from the quickest exchange.

    samples: (our clock when we asked, their clock when they answered, our clock when we heard it); at least one. As in NTP the answer is
    taken to have been given in the middle, which is wrong by half of the round trip at most.
    """
    asked, answered, heard = min(samples, key=lambda sample: sample[2] - sample[0])
    return answered - (asked + heard) / 2, heard - asked
