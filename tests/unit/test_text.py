"""Numbers on the page are rounded, with units that suit their size."""

from __future__ import annotations

import pytest

from megatron import text


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (20_554_567_680, "20.55B"),
        (162_322_944, "162.3M"),
        (3.05e12, "3.05T"),
        (12_500, "12.5k"),
        (927.556, "928"),
        (7, "7"),
    ],
)
def test_counts(number: float, written: str) -> None:
    assert text.count(number) == written


@pytest.mark.parametrize(
    ("size", "written"), [(0, "0 MiB"), (310 * 2**20, "310 MiB"), (2**30, "1.0 GiB"), (int(37.24 * 2**30), "37.2 GiB")]
)
def test_memory(size: int, written: str) -> None:
    assert text.memory(size) == written


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (4.2e18, "4.20 EFLOP"),
        (63.43e12, "63.43 TFLOP"),
        (9.07e9, "9.07 GFLOP"),
        (1e21, "1.00 ZFLOP"),
        (5e15, "5.00 PFLOP"),
    ],
)
def test_flops(number: float, written: str) -> None:
    assert text.flops(number) == written


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.0635, "0.0635 seconds"),
        (33.58, "33.6 seconds"),
        (150, "2.5 minutes"),
        (3 * 3600, "3.0 hours"),
        (58.4 * 86400, "58.4 days"),
        (1234 * 86400, "1,234.0 days"),
    ],
)
def test_times(seconds: float, written: str) -> None:
    assert text.time(seconds) == written


@pytest.mark.parametrize(("share", "written"), [(0.0, "0 %"), (0.004, "0.4 %"), (0.07, "7 %"), (1.0, "100 %")])
def test_percentages(share: float, written: str) -> None:
    assert text.percent(share) == written


def test_ranks_are_listed() -> None:
    assert (text.ranks([3]), text.ranks((1, 12))) == ("rank 3", "ranks 1, 12")


def test_tables_are_aligned_without_blanks_at_the_end() -> None:
    assert text.table([["a", "bb"], ["ccc", ""]], right=[0]) == ["  a  bb", "ccc"]


def test_long_words_are_never_divided() -> None:
    word = "train_micro_batch_size_per_gpu=1-2-3"
    lines = text.wrap(" ".join([word] * 9), indent=5, hanging=2)
    assert all(len(line) <= text.WIDTH for line in lines)
    assert " ".join(lines).split() == [word] * 9
    assert lines[0].startswith("     train")
    assert lines[1].startswith("       train")
