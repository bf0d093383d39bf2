from __future__ import annotations

import pytest

from megatron.doctor.nodes.clock import skew_of


def test_the_quickest_exchange_tells_the_skew() -> None:
    """Their clock is 5 s ahead; the second exchange was held up on its way back."""
    samples = [(100.0, 105.0505, 100.1), (200.0, 205.001, 201.0), (300.0, 305.001, 300.002)]
    skew, round_trip = skew_of(samples)
    assert skew == pytest.approx(5.0)
    assert round_trip == pytest.approx(0.002)
