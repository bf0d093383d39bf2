"""Statistics in one pass, compared with torch on the whole tensor."""

from __future__ import annotations

import math

import pytest
import torch

from megatron.checkpointing.inspecting.blocks import BLOCK_ELEMENTS, blocks
from megatron.checkpointing.inspecting.statistics import measure


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_statistics_are_those_of_the_whole_tensor(dtype: torch.dtype) -> None:
    values = (torch.randn(3, BLOCK_ELEMENTS // 2, generator=torch.Generator().manual_seed(0)) + 1).to(dtype)
    values[1, ::3] = 0
    found, exact = measure(values), values.double()
    assert found.elements == values.numel()
    assert found.zeros == int((values == 0).sum())
    assert found.not_finite == 0
    assert found.norm == pytest.approx(float(exact.norm()), rel=1e-12)
    assert found.mean == pytest.approx(float(exact.mean()), rel=1e-12)
    assert found.deviation == pytest.approx(float(exact.std(correction=0)), rel=1e-9)
    assert (found.least, found.largest) == (float(exact.min()), float(exact.max()))
    assert found.root_mean_square == pytest.approx(float(exact.pow(2).mean().sqrt()), rel=1e-12)


def test_what_is_not_finite_is_counted_and_left_out() -> None:
    found = measure(torch.tensor([3.0, math.nan, -math.inf, -4.0, 0.0, math.inf]))
    assert (found.elements, found.not_finite, found.zeros) == (6, 3, 1)
    assert (found.norm, found.mean, found.least, found.largest, found.magnitude) == (5.0, -1 / 3, -4.0, 3.0, 4.0)


@pytest.mark.parametrize("values", [torch.zeros(0), torch.zeros(0, 4), torch.full((5,), math.nan)])
def test_there_may_be_no_finite_values(values: torch.Tensor) -> None:
    found = measure(values)
    assert found.not_finite == found.elements == values.numel()
    assert (found.norm, found.least, found.largest, found.root_mean_square) == (0.0, 0.0, 0.0, 0.0)


def test_one_value_and_strided_values_are_measured() -> None:
    assert measure(torch.tensor(-2.0)).norm == 2.0
    assert measure(torch.arange(6.0).view(2, 3).T).largest == 5.0


def test_blocks_go_side_by_side() -> None:
    first = torch.arange(BLOCK_ELEMENTS + 5).view(1, -1)
    pairs = list(blocks(first, first + 1))
    assert [len(one) for one, _ in pairs] == [BLOCK_ELEMENTS, 5]
    assert all(torch.equal(one + 1, other) for one, other in pairs)
