"""Splits: which documents are for training, validation and testing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron.data.splits import parse_split, split_documents
from megatron.errors import DataError


def test_both_separators_and_missing_parts():
    assert parse_split("969, 30, 1") == parse_split("969/30/1") == (0.969, 0.03, 0.001)
    assert parse_split("90") == (1.0, 0.0, 0.0)
    assert parse_split("1,1") == (0.5, 0.5, 0.0)


def test_known_boundaries():
    assert split_documents("969, 30, 1", 310) == {
        "train": range(300 + 1),
        "valid": range(301, 310),
        "test": range(310, 310),
    }
    assert split_documents("90,5,5", 310) == {"train": range(278), "valid": range(278, 294), "test": range(294, 310)}


def test_what_rounding_misses_is_taken_from_every_boundary():
    # round(1.5) + round(1.5) is one too many for 3 documents: boundaries 0, 2, 4, 4 become 0, 1, 3, 3.
    assert split_documents("1,1,0", 3) == {"train": range(1), "valid": range(1, 3), "test": range(3, 3)}


def test_no_boundary_falls_below_zero():
    assert split_documents("0,1,1", 3) == {"train": range(0), "valid": range(1), "test": range(1, 3)}


@settings(deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=3).filter(any), st.integers(0, 10**7))
def test_the_parts_cover_all_documents_in_order(shares, documents):
    parts = list(split_documents(",".join(map(str, shares)), documents).values())
    assert parts[0].start == 0
    assert parts[0].stop == parts[1].start
    assert parts[1].stop == parts[2].start
    assert parts[2].stop == documents
    assert all(part.start <= part.stop for part in parts)


@pytest.mark.parametrize("text", ["", "a,b", "0,0,0", "-1,2", "1,2,3,4", "nan,1", "inf"])
def test_a_split_that_makes_no_sense_is_refused(text):
    with pytest.raises(DataError, match='"split" is'):
        split_documents(text, 10)
