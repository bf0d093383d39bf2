"""Sums of squares over rows are nearly as good as those in fp64."""

from __future__ import annotations

import pytest
import torch

from megatron.engine.squares import ROW, sum_of_squares


@pytest.mark.parametrize("length", [0, 1, ROW - 1, ROW, 5 * ROW + 3, 1_000_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_sum_is_that_of_fp64(length: int, dtype: torch.dtype) -> None:
    values = (torch.randn(length, generator=torch.Generator().manual_seed(1)) + 0.3).to(dtype)
    total = sum_of_squares(values)
    assert total.dtype == torch.float64
    assert float(total) == pytest.approx(
        float(values.double().square().sum()), rel=1e-12 if dtype == torch.float64 else 2e-7
    )


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
@pytest.mark.parametrize("place", [0, -1])
def test_what_is_not_finite_shows(bad: float, place: int) -> None:
    values = torch.ones(3 * ROW + 1)
    values[place] = bad
    assert not torch.isfinite(sum_of_squares(values))
