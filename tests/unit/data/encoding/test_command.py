"""The options that commands share."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from megatron.data.encoding.command import output_prefix
from megatron.data.indexed_dataset import dataset_prefix
from megatron.errors import DataError


def test_an_output_prefix_is_the_beginning_of_names_of_files() -> None:
    assert output_prefix("data/mine") == Path("data/mine")
    for text in ("", ".", "/", "data/"):
        with pytest.raises(
            argparse.ArgumentTypeError, match=r"is no beginning of names of files: add one, as in .*mine"
        ):
            output_prefix(text)


def test_a_dataset_has_a_name() -> None:
    assert dataset_prefix("data/a.b.idx") == Path("data/a.b")
    for text in ("", ".", "/"):
        with pytest.raises(DataError, match="does not name a dataset: give what its files begin with"):
            dataset_prefix(text)
